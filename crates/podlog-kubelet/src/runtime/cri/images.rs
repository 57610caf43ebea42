//! Images: from CRI's words to the seam's. Pure.

use std::path::PathBuf;

use podlog_proto::cri;

use crate::runtime::ListedImage;

/// An image as listed.
pub(super) fn from_cri(image: cri::Image) -> ListedImage {
    ListedImage {
        id: image.id,
        bytes: image.size,
        is_pinned: image.pinned,
        names: image.repo_tags.into_iter().chain(image.repo_digests).collect(),
    }
}

/// Where images are.
pub(super) fn directory(answer: cri::ImageFsInfoResponse) -> Option<PathBuf> {
    let first = answer.image_filesystems.into_iter().next()?;
    Some(first.fs_id?.mountpoint.into())
}
