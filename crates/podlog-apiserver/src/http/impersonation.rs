//! Acting as somebody else (`k8s.io/apiserver/pkg/endpoints/filters/impersonation`).

use http::HeaderMap;
use podlog_api::{ApiError, Attributes, UserInfo, query, rbac};
use podlog_serving::{Authorizer, Refusal, authorize};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// The user that a request wants to be; `None` when it does not say. Checks that its real user may.
pub(crate) async fn impersonated(
    headers: &HeaderMap,
    user: &UserInfo,
    authorizer: &dyn Authorizer,
) -> Result<Option<UserInfo>, ApiError> {
    let Some(wanted) = wanted(headers)? else { return Ok(None) };
    for attributes in checks(&wanted) {
        match authorize(authorizer, user, &attributes).await {
            Ok(_) => {}
            Err(Refusal::Forbidden { reason }) => return Err(rbac::forbidden(user, &attributes, &reason)),
            Err(Refusal::Error(error)) => return Err(ApiError::internal(error)),
        }
    }
    Ok(Some(completed(wanted)))
}

fn wanted(headers: &HeaderMap) -> Result<Option<UserInfo>, ApiError> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let groups: Vec<String> =
        headers.get_all(GROUP).iter().filter_map(|v| v.to_str().ok()).map(str::to_owned).collect();
    let mut user = UserInfo { username: text(USER), uid: text(UID), groups, ..UserInfo::default() };
    for (name, value) in headers {
        let Some(key) = name.as_str().strip_prefix(EXTRA) else { continue };
        let key = query::unescape_path(key).unwrap_or_else(|| key.to_owned());
        user.extra.entry(key).or_default().push(value.to_str().unwrap_or_default().to_owned());
    }
    if user == UserInfo::default() {
        return Ok(None);
    }
    if user.username.is_empty() {
        return Err(ApiError::bad_request(
            "requested impersonation of groups, uid or extra without impersonating a user name",
        ));
    }
    Ok(Some(user))
}

fn service_account(username: &str) -> Option<(&str, &str)> {
    username
        .strip_prefix(SERVICE_ACCOUNT)?
        .split_once(':')
        .filter(|(ns, name)| !ns.is_empty() && !name.is_empty())
}

/// Each of them must be allowed.
fn checks(wanted: &UserInfo) -> Vec<Attributes> {
    let check =
        |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| Attributes::Resource {
            verb: "impersonate".into(),
            group: group.into(),
            version: "v1".into(),
            resource: resource.into(),
            subresource: subresource.into(),
            namespace: namespace.into(),
            name: name.into(),
        };
    let mut checks = vec![match service_account(&wanted.username) {
        Some((namespace, name)) => check("", "serviceaccounts", "", namespace, name),
        None => check("", "users", "", "", &wanted.username),
    }];
    checks.extend(wanted.groups.iter().map(|group| check("", "groups", "", "", group)));
    for (key, values) in &wanted.extra {
        checks
            .extend(values.iter().map(|value| check("authentication.k8s.io", "userextras", key, "", value)));
    }
    if !wanted.uid.is_empty() {
        checks.push(check("authentication.k8s.io", "uids", "", "", &wanted.uid));
    }
    checks
}

/// Adds the groups that come with an identity.
fn completed(mut user: UserInfo) -> UserInfo {
    if user.groups.is_empty()
        && let Some((namespace, _)) = service_account(&user.username)
    {
        user.groups = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
    }
    let anonymous = user.username == UserInfo::ANONYMOUS;
    if anonymous && !user.is_in(UserInfo::UNAUTHENTICATED) {
        user.groups.push(UserInfo::UNAUTHENTICATED.into());
    } else if !anonymous && !user.is_in(UserInfo::AUTHENTICATED) && !user.is_in(UserInfo::UNAUTHENTICATED) {
        user.groups.push(UserInfo::AUTHENTICATED.into());
    }
    user
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(key, value)| (key.parse::<http::HeaderName>().unwrap(), value.parse().unwrap()))
            .collect()
    }

    /// Headers, and the user name and groups that they make.
    type Row<'a> = (&'a [(&'a str, &'a str)], Option<(&'a str, &'a [&'a str])>);

    #[test]
    fn identities() {
        let rows: [Row<'_>; 5] = [
            (&[], None),
            (&[("impersonate-user", "bob")], Some(("bob", &["system:authenticated"]))),
            (
                &[("impersonate-user", "bob"), ("impersonate-group", "a"), ("impersonate-group", "b")],
                Some(("bob", &["a", "b", "system:authenticated"])),
            ),
            (
                &[("impersonate-user", "system:serviceaccount:prod:ci")],
                Some((
                    "system:serviceaccount:prod:ci",
                    &["system:serviceaccounts", "system:serviceaccounts:prod", "system:authenticated"],
                )),
            ),
            (
                &[("impersonate-user", "system:anonymous")],
                Some(("system:anonymous", &["system:unauthenticated"])),
            ),
        ];
        for (sent, expected) in rows {
            let mut map = HeaderMap::new();
            for (key, value) in sent {
                map.append(key.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
            }
            let user = wanted(&map).unwrap().map(completed);
            let found = user
                .as_ref()
                .map(|u| (u.username.as_str(), u.groups.iter().map(String::as_str).collect::<Vec<_>>()));
            assert_eq!(found, expected.map(|(name, groups)| (name, groups.to_vec())));
        }
        assert_eq!(wanted(&headers(&[("impersonate-group", "a")])).unwrap_err().code, 400);
    }

    #[test]
    fn every_part_is_asked_for() {
        let user = wanted(&headers(&[
            ("impersonate-user", "system:serviceaccount:prod:ci"),
            ("impersonate-group", "g"),
            ("impersonate-uid", "u"),
            ("impersonate-extra-example.com%2fscope", "x"),
        ]));
        let asked: Vec<String> = checks(&user.unwrap().unwrap())
            .iter()
            .map(|attributes| match attributes {
                Attributes::Resource { group, resource, subresource, namespace, name, .. } => {
                    format!("{group}/{resource}/{subresource}/{namespace}/{name}")
                }
                Attributes::NonResource { .. } => unreachable!("resources only"),
            })
            .collect();
        assert_eq!(
            asked,
            [
                "/serviceaccounts//prod/ci",
                "/groups///g",
                "authentication.k8s.io/userextras/example.com/scope//x",
                "authentication.k8s.io/uids///u"
            ]
        );
    }
}
