//! One request on its way through the server.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use podlog_api::accept::{self, Endpoint};
use podlog_api::query::Query;
use podlog_api::resource::{self, Resource, Subresource};
use podlog_api::strict::{FieldValidation, MediaType};
use podlog_api::{ApiError, Attributes, Reason, RequestInfo, UserInfo, go, ownership, rbac};
use podlog_serving::{Body, BodyError, Permit, Refusal, Upgrade, authorize};

use super::negotiation::{Wanted, first};
use super::write_options::{WriteOptions, Writing};
use crate::audit::Record;
use crate::auth::ClusterAuthorizer;
use crate::registry::{Ownership, WriteContext};

/// The media type of server-side apply.
const APPLY: &str = "application/apply-patch+yaml";
/// Largest body that is read.
const MAX_BODY_BYTES: usize = 3 << 20;

/// A request that is authenticated and authorized.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) info: RequestInfo,
    pub(crate) query: Query,
    /// Who is connected: the client, or the last of the proxies on its way.
    pub(crate) address: IpAddr,
    /// The path as on the wire.
    pub(crate) path: String,
    /// The query as on the wire.
    pub(crate) raw_query: String,
    pub(crate) permit: Permit,
    /// Whom to ask what else the user may do.
    pub(crate) authorizer: Arc<ClusterAuthorizer>,
    /// What is noted of the request.
    pub(crate) audit: Option<Arc<Record>>,
    /// Taken by whoever reads it.
    pub(crate) body: Mutex<Option<Body>>,
    /// The wish for another protocol.
    pub(crate) upgrade: Option<Upgrade>,
}

/// The resource that a request is for.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) resource: &'static Resource,
    pub(crate) subresource: Option<&'static Subresource>,
    pub(crate) verb: String,
    /// Empty for cluster-scoped kinds and for all namespaces.
    pub(crate) namespace: String,
    /// Empty for collections.
    pub(crate) name: String,
}

impl Target {
    /// The namespace; `None` for cluster-scoped kinds and for all namespaces.
    pub(crate) fn namespace(&self) -> Option<&str> {
        Some(self.namespace.as_str()).filter(|namespace| !namespace.is_empty())
    }
}

impl Call {
    pub(crate) fn user(&self) -> &UserInfo {
        self.permit.user()
    }

    /// The resource, when the path names one that is served in this way.
    pub(crate) fn target(&self) -> Result<Target, ApiError> {
        let Attributes::Resource { verb, group, version, resource, namespace, .. } = &self.info.attributes
        else {
            return Err(ApiError::no_such_path());
        };
        if verb == "proxy" {
            return Err(ApiError::no_such_path());
        }
        let part = |index: usize| self.info.parts.get(index).map_or("", String::as_str);
        let found = resource::find(group, version, resource).ok_or_else(ApiError::no_such_path)?;
        let (name, rest) = (part(1), part(2));
        let misplaced = if found.namespaced {
            namespace.is_empty() && !name.is_empty()
        } else {
            !namespace.is_empty() && found.kind != "Namespace"
        };
        if misplaced || (self.info.parts.len() > 3 && rest != "proxy") {
            return Err(ApiError::no_such_path());
        }
        let subresource = match rest {
            "" => None,
            rest => Some(found.subresource(rest).ok_or_else(ApiError::no_such_path)?),
        };
        let offered = subresource.map_or(found.verbs, |s| s.verbs);
        let named = !name.is_empty();
        let routed = match verb.as_str() {
            "create" => named == subresource.is_some() && (!found.namespaced || !namespace.is_empty()),
            "deletecollection" => !found.namespaced || !namespace.is_empty(),
            "update" | "patch" => named,
            _ => self.method != Method::HEAD,
        };
        // Which methods a kubelet knows is for it to say.
        let is_for_others = rest == "proxy" && matches!(self.method, Method::HEAD | Method::OPTIONS);
        if !is_for_others && (!routed || !offered.contains(&&**verb)) {
            return Err(ApiError::method_not_allowed());
        }
        check_name(name)?;
        Ok(Target {
            resource: found,
            subresource,
            verb: verb.clone(),
            namespace: if found.namespaced { namespace.clone() } else { String::new() },
            name: name.to_owned(),
        })
    }

    /// On whose behalf this writes, and whether it is only to be tried.
    pub(crate) fn write_context(&self) -> Result<WriteContext, ApiError> {
        let options = self.write_options()?;
        let subresource = self.info.parts.get(2).cloned().unwrap_or_default();
        Ok(WriteContext {
            user: Some(self.user().clone()),
            authorizer: Some(self.authorizer.clone()),
            dry_run: options.dry_run,
            manager: self.manager(options.manager),
            subresource,
            ownership: Ownership::Tracked,
        })
    }

    fn write_options(&self) -> Result<WriteOptions, ApiError> {
        let writing = match self.info.attributes.verb() {
            "update" => Writing::Update,
            "delete" | "deletecollection" => Writing::Delete,
            "patch" if self.is_apply() => Writing::Apply,
            "patch" => Writing::Patch,
            _ => Writing::Create,
        };
        WriteOptions::parse(&self.query, writing)
    }

    /// Who owns what is written: whom the request names, or what the client calls itself.
    fn manager(&self, named: String) -> String {
        let of_agent = || ownership::manager_of_user_agent(first(&self.headers, http::header::USER_AGENT));
        let mut managers = std::iter::once(named).chain(std::iter::once_with(of_agent));
        managers.find(|manager| !manager.is_empty()).unwrap_or_else(|| "unknown".to_owned())
    }

    /// Refuses unless whoever calls may do this, too.
    pub(crate) async fn demand(&self, verb: &str) -> Result<(), ApiError> {
        let mut attributes = self.info.attributes.clone();
        if let Attributes::Resource { verb: asked, .. } = &mut attributes {
            *asked = verb.to_owned();
        }
        match authorize(self.authorizer.as_ref(), self.user(), &attributes).await {
            Ok(_) => Ok(()),
            Err(Refusal::Forbidden { reason }) => Err(rbac::forbidden(self.user(), &attributes, &reason)),
            Err(Refusal::Error(error)) => Err(ApiError::internal(error)),
        }
    }

    /// What to do with fields that the kind does not have.
    pub(crate) fn field_validation(&self) -> Result<FieldValidation, ApiError> {
        Ok(self.write_options()?.validation)
    }

    /// The format of the body.
    pub(crate) fn media_type(&self) -> Result<MediaType, ApiError> {
        accept::request_body(self.content_type())
    }

    /// The representation of the answer.
    pub(crate) fn wanted(&self, endpoint: Endpoint) -> Result<Wanted, ApiError> {
        Wanted::negotiate(&self.headers, &self.raw_query, endpoint)
    }

    /// The body's media type, without its parameters.
    pub(crate) fn bare_media_type(&self) -> &str {
        self.content_type().split(';').next().unwrap_or_default().trim()
    }

    /// Whether this is a server-side apply.
    pub(crate) fn is_apply(&self) -> bool {
        self.bare_media_type() == APPLY
    }

    pub(crate) fn content_type(&self) -> &str {
        first(&self.headers, http::header::CONTENT_TYPE)
    }

    /// All of the body.
    pub(crate) async fn read_body(&self) -> Result<Bytes, ApiError> {
        let body = self.body.lock().take();
        let Some(body) = body else { return Ok(Bytes::new()) };
        match read_limited(body, MAX_BODY_BYTES).await {
            Ok(bytes) => {
                if let Some(record) = &self.audit {
                    record.request_body(&bytes, self.content_type());
                }
                Ok(bytes)
            }
            Err(ReadError::TooLong) => Err(ApiError::new(
                413,
                Reason::RequestEntityTooLarge,
                format!("Request entity too large: limit is {MAX_BODY_BYTES}"),
            )),
            Err(ReadError::Broken(error)) => {
                Err(ApiError::bad_request(format!("the body could not be read: {error}")))
            }
        }
    }
}

/// What no key in the store can hold (`NamespaceKeyFunc` of `k8s.io/apiserver/pkg/registry/generic/registry/store.go`). A slash
/// ends the name.
fn check_name(name: &str) -> Result<(), ApiError> {
    let why = match name {
        "." | ".." => format!("may not be '{name}'"),
        name if name.contains('%') => "may not contain '%'".to_owned(),
        _ => return Ok(()),
    };
    Err(ApiError::bad_request(format!("Name parameter invalid: {}: {why}", go::quote(name))))
}

/// Why a body could not be read.
pub(crate) enum ReadError {
    TooLong,
    Broken(BodyError),
}

/// A body that is too long is read on for a while, up to so many times the limit: most clients only look for an answer when
/// they have sent everything.
const PATIENCE: usize = 8;

/// All of a body that is not longer than `limit`.
pub(crate) async fn read_limited<B>(mut body: B, limit: usize) -> Result<Bytes, ReadError>
where
    B: http_body::Body<Data = Bytes, Error = BodyError> + Unpin,
{
    let mut read = BytesMut::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(ReadError::Broken)?.into_data() else { continue };
        length += data.len();
        if length <= limit {
            read.extend_from_slice(&data);
        } else if length > PATIENCE * limit {
            break;
        }
    }
    if length > limit { Err(ReadError::TooLong) } else { Ok(read.freeze()) }
}
