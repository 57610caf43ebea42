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

/// What the configuration in containerd's status says sandboxes are made from.
pub(super) fn sandbox_image(config: &str) -> Option<String> {
    let config: serde_json::Value = serde_json::from_str(config).ok()?;
    Some(config["sandboxImage"].as_str()?.to_owned())
}

/// The image, which the runtime needs if this is one of its names.
pub(super) fn pinned_if_named(image: ListedImage, own: Option<&str>) -> ListedImage {
    let is_own = own.is_some_and(|own| image.id == own || image.names.iter().any(|name| name == own));
    ListedImage { is_pinned: image.is_pinned || is_own, ..image }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_of_sandboxes_is_needed() {
        let config = r#"{"containerd": {}, "sandboxImage": "registry.k8s.io/pause:3.6"}"#;
        let own = sandbox_image(config);
        for (name, pinned, expected) in
            [("registry.k8s.io/pause:3.6", false, true), ("web:1", false, false), ("web:1", true, true)]
        {
            let image = ListedImage { names: vec![name.into()], is_pinned: pinned, ..ListedImage::default() };
            assert_eq!(pinned_if_named(image, own.as_deref()).is_pinned, expected, "{name}");
        }
        assert_eq!(sandbox_image("{}"), None);
        assert_eq!(sandbox_image("?"), None);
    }
}
