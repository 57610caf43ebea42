//! Acting as somebody else (`k8s.io/apiserver/pkg/endpoints/filters/impersonation`).

mod modes;

use http::{HeaderMap, HeaderValue};
use podlog_api::{ApiError, Attributes, UserInfo, go, query, rbac};
use podlog_serving::{Authorizer, Refusal, authorize};

use modes::{Check, Mode};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// Somebody whom a request may act as.
#[derive(Debug)]
pub(crate) struct Impersonated {
    pub(crate) user: UserInfo,
    /// The verb that allowed it, where that was one for this kind of user and of request only.
    pub(crate) constraint: Option<String>,
}

/// The user that a request wants to be; `None` when it does not say. Checks that its real user may: in the narrow ways first, and
/// when none of them is allowed, the reason against the first is the answer.
pub(crate) async fn impersonated(
    headers: &HeaderMap,
    user: &UserInfo,
    request: &Attributes,
    authorizer: &dyn Authorizer,
) -> Result<Option<Impersonated>, ApiError> {
    let Some(wanted) = wanted(headers)? else { return Ok(None) };
    let mut refusal = None;
    for mode in Mode::ALL.into_iter().filter(|mode| mode.applies(&wanted, user)) {
        match allowed(mode, &wanted, user, request, authorizer).await {
            Ok(()) => {
                return Ok(Some(Impersonated {
                    user: mode.completed(wanted),
                    constraint: mode.constraint(),
                }));
            }
            Err(error) => refusal = refusal.or(Some(error)),
        }
    }
    Err(refusal.unwrap_or_else(|| ApiError::internal("no way to impersonate applies")))
}

async fn allowed(
    mode: Mode,
    wanted: &UserInfo,
    user: &UserInfo,
    request: &Attributes,
    authorizer: &dyn Authorizer,
) -> Result<(), ApiError> {
    let asking = mode.requestor(user);
    for check in mode.checks(wanted, request) {
        match check {
            Check::Right(right) => ask(&asking, &right, authorizer).await?,
            Check::AnyOrEach(any, each) => {
                if ask(&asking, &any, authorizer).await.is_err() {
                    for right in &each {
                        ask(&asking, right, authorizer).await?;
                    }
                }
            }
            Check::Refused(right, why) => return Err(rbac::forbidden(user, &right, &why)),
        }
    }
    Ok(())
}

async fn ask(user: &UserInfo, right: &Attributes, authorizer: &dyn Authorizer) -> Result<(), ApiError> {
    match authorize(authorizer, user, right).await {
        Ok(_) => Ok(()),
        Err(Refusal::Forbidden { reason }) => Err(rbac::forbidden(user, right, &reason)),
        Err(Refusal::Error(error)) => Err(rbac::forbidden(user, right, &error.to_string())),
    }
}

fn wanted(headers: &HeaderMap) -> Result<Option<UserInfo>, ApiError> {
    let one = |name: &str| headers.get(name).map_or(Ok(String::new()), text);
    let groups = headers.get_all(GROUP).iter().map(text).collect::<Result<_, _>>()?;
    let mut user = UserInfo { username: one(USER)?, uid: one(UID)?, groups, ..UserInfo::default() };
    for (name, value) in headers {
        let Some(key) = name.as_str().strip_prefix(EXTRA) else { continue };
        let key = query::unescape_path(key).unwrap_or_else(|| key.to_owned());
        user.extra.entry(key).or_default().push(text(value)?);
    }
    if user == UserInfo::default() {
        return Ok(None);
    }
    if user.username.is_empty() {
        let wanted = go_syntax(&user);
        return Err(ApiError::bad_request(format!("requested {wanted} without impersonating a user name")));
    }
    Ok(Some(user))
}

/// Names may be of any script. One that cannot be read must not be taken for none: the request would be made by whoever asks.
fn text(value: &HeaderValue) -> Result<String, ApiError> {
    let text = std::str::from_utf8(value.as_bytes());
    let refused = |_| ApiError::bad_request("a header that says as whom to act is not UTF-8");
    text.map(str::to_owned).map_err(refused)
}

fn service_account(username: &str) -> Option<(&str, &str)> {
    username
        .strip_prefix(SERVICE_ACCOUNT)?
        .split_once(':')
        .filter(|(ns, name)| !ns.is_empty() && !name.is_empty())
}

/// A user as Go's `%#v` writes it.
fn go_syntax(user: &UserInfo) -> String {
    let list = |values: &[String]| values.iter().map(|value| go::quote(value)).collect::<Vec<_>>().join(", ");
    let groups = match user.groups.as_slice() {
        [] => "(nil)".to_owned(),
        groups => format!("{{{}}}", list(groups)),
    };
    let extra = match user.extra.is_empty() {
        true => "(nil)".to_owned(),
        false => {
            let pairs = user.extra.iter();
            let pairs = pairs.map(|(key, values)| format!("{}:[]string{{{}}}", go::quote(key), list(values)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }
    };
    format!(
        "&user.DefaultInfo{{Name:\"\", UID:{}, Groups:[]string{groups}, Extra:map[string][]string{extra}}}",
        go::quote(&user.uid)
    )
}

#[cfg(test)]
mod tests {
    use podlog_api::{Decision, Selectors};
    use podlog_serving::AuthzError;

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
        let rows: [Row<'_>; 6] = [
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
            (
                &[("impersonate-user", "jürgen"), ("impersonate-group", "größte")],
                Some(("jürgen", &["größte", "system:authenticated"])),
            ),
        ];
        for (sent, expected) in rows {
            let mut map = HeaderMap::new();
            for (key, value) in sent {
                map.append(key.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
            }
            let user = wanted(&map).unwrap().map(|user| Mode::Legacy.completed(user));
            let found = user
                .as_ref()
                .map(|u| (u.username.as_str(), u.groups.iter().map(String::as_str).collect::<Vec<_>>()));
            assert_eq!(found, expected.map(|(name, groups)| (name, groups.to_vec())));
        }
        let unreadable =
            HeaderMap::from_iter([(USER.parse().unwrap(), HeaderValue::from_bytes(b"j\xfcrgen").unwrap())]);
        assert_eq!(
            wanted(&unreadable).unwrap_err().code,
            400,
            "whoever asks does not act as themselves instead"
        );
        let rows = [
            (
                ("impersonate-group", "a"),
                "&user.DefaultInfo{Name:\"\", UID:\"\", Groups:[]string{\"a\"}, Extra:map[string][]string(nil)}",
            ),
            (
                ("impersonate-uid", "u"),
                "&user.DefaultInfo{Name:\"\", UID:\"u\", Groups:[]string(nil), Extra:map[string][]string(nil)}",
            ),
            (
                ("impersonate-extra-k", "v"),
                "&user.DefaultInfo{Name:\"\", UID:\"\", Groups:[]string(nil), Extra:map[string][]string{\"k\":[]string{\"v\"}}}",
            ),
        ];
        for (header, shown) in rows {
            let error = wanted(&headers(&[header])).unwrap_err();
            let text = format!("requested {shown} without impersonating a user name");
            assert_eq!((error.code, error.message), (400, text));
        }
    }

    /// `verb[: group]/resource[/subresource]/namespace/name`.
    fn shown(attributes: &Attributes) -> String {
        match attributes {
            Attributes::Resource { verb, group, resource, subresource, namespace, name, .. } => {
                format!("{verb} {group}/{resource}/{subresource}/{namespace}/{name}")
            }
            Attributes::NonResource { verb, path } => format!("{verb} {path}"),
        }
    }

    /// Allows the rights that it has, and notes what it is asked.
    #[derive(Default)]
    struct Rights {
        held: Vec<&'static str>,
        asked: parking_lot::Mutex<Vec<String>>,
    }

    #[async_trait::async_trait]
    impl Authorizer for Rights {
        async fn authorize(&self, _: &UserInfo, attributes: &Attributes) -> Result<Decision, AuthzError> {
            let right = shown(attributes);
            let held = self.held.contains(&right.as_str());
            self.asked.lock().push(right);
            Ok(if held { Decision::Allow(String::new()) } else { Decision::NoOpinion(String::new()) })
        }
    }

    fn request() -> Attributes {
        Attributes::Resource {
            verb: "get".into(),
            group: String::new(),
            version: "v1".into(),
            resource: "pods".into(),
            subresource: "log".into(),
            namespace: "prod".into(),
            name: "web".into(),
            selectors: Selectors::default(),
        }
    }

    /// A service account whose pod runs on `n1`.
    fn agent() -> UserInfo {
        let extra = [("authentication.kubernetes.io/node-name".to_owned(), vec!["n1".to_owned()])];
        UserInfo {
            username: "system:serviceaccount:prod:agent".into(),
            extra: extra.into(),
            ..UserInfo::default()
        }
    }

    #[tokio::test]
    async fn every_part_is_asked_for() {
        let sent = headers(&[
            ("impersonate-user", "system:serviceaccount:prod:ci"),
            ("impersonate-group", "g"),
            ("impersonate-uid", "u"),
            ("impersonate-extra-example.com%2fscope", "x"),
        ]);
        let rights = Rights {
            held: vec![
                "impersonate /serviceaccounts//prod/ci",
                "impersonate authentication.k8s.io/uids///u",
                "impersonate /groups///g",
                "impersonate authentication.k8s.io/userextras/example.com/scope//x",
            ],
            ..Rights::default()
        };
        let other = impersonated(&sent, &agent(), &request(), &rights).await.unwrap().unwrap();
        assert_eq!(
            (other.user.groups, other.constraint),
            (vec!["g".into(), "system:authenticated".into()], None)
        );
        assert_eq!(*rights.asked.lock(), rights.held);
    }

    /// Who is to be impersonated, the rights held, and what comes of it: who it is and by which verb, or the refusal.
    type Attempt = (&'static [(&'static str, &'static str)], Vec<&'static str>, String);

    #[tokio::test]
    async fn narrow_ways_come_first_and_the_first_refusal_counts() {
        const ON: &str = "/pods/log/prod/web";
        const NODE: &str = "system:node:n1";
        let pods = "pods \"web\" is forbidden: User \"system:serviceaccount:prod:agent\" cannot";
        let rows: Vec<Attempt> = vec![
            (
                &[(USER, "bob")],
                vec!["impersonate-on:user-info:get /pods/log/prod/web", "impersonate:user-info authentication.k8s.io/users///bob"],
                "bob [system:authenticated] impersonate:user-info".into(),
            ),
            (&[(USER, "bob")], vec!["impersonate /users///bob"], "bob [system:authenticated]".into()),
            (
                &[(USER, "bob")],
                vec![],
                format!("{pods} impersonate-on:user-info:get resource \"pods/log\" in API group \"\" in the namespace \"prod\""),
            ),
            (
                &[(USER, "bob")],
                vec!["impersonate-on:user-info:get /pods/log/prod/web"],
                "users.authentication.k8s.io \"bob\" is forbidden: User \"system:serviceaccount:prod:agent\" cannot \
                 impersonate:user-info resource \"users\" in API group \"authentication.k8s.io\" at the cluster scope"
                    .into(),
            ),
            (
                &[(USER, NODE)],
                vec![
                    "impersonate-on:associated-node:get /pods/log/prod/web",
                    "impersonate:associated-node authentication.k8s.io/nodes///*",
                ],
                "system:node:n1 [system:nodes, system:authenticated] impersonate:associated-node".into(),
            ),
            (
                &[(USER, "system:node:n2")],
                vec![
                    "impersonate-on:associated-node:get /pods/log/prod/web",
                    "impersonate:associated-node authentication.k8s.io/nodes///*",
                ],
                format!("{pods} impersonate-on:arbitrary-node:get resource \"pods/log\" in API group \"\" in the namespace \"prod\""),
            ),
            (
                &[(USER, "system:node:n2")],
                vec![
                    "impersonate-on:arbitrary-node:get /pods/log/prod/web",
                    "impersonate:arbitrary-node authentication.k8s.io/nodes///n2",
                ],
                "system:node:n2 [system:nodes, system:authenticated] impersonate:arbitrary-node".into(),
            ),
            (
                &[(USER, NODE)],
                vec!["impersonate /users///system:node:n1"],
                "system:node:n1 [system:authenticated]".into(),
            ),
            (
                &[(USER, "system:serviceaccount:a:b")],
                vec![
                    "impersonate-on:serviceaccount:get /pods/log/prod/web",
                    "impersonate:serviceaccount authentication.k8s.io/serviceaccounts//a/b",
                ],
                "system:serviceaccount:a:b [system:serviceaccounts, system:serviceaccounts:a, system:authenticated] \
                 impersonate:serviceaccount"
                    .into(),
            ),
            (
                &[(USER, "bob"), (GROUP, "system:masters")],
                vec!["impersonate-on:user-info:get /pods/log/prod/web", "impersonate:user-info authentication.k8s.io/users///bob"],
                "groups.authentication.k8s.io \"system:masters\" is forbidden: User \"system:serviceaccount:prod:agent\" \
                 cannot impersonate:user-info resource \"groups\" in API group \"authentication.k8s.io\" at the cluster \
                 scope: impersonating the system:masters group is not allowed"
                    .into(),
            ),
            (
                &[(USER, "bob"), (GROUP, "a"), (GROUP, "b"), (GROUP, "c"), (GROUP, "d")],
                vec![
                    "impersonate-on:user-info:get /pods/log/prod/web",
                    "impersonate:user-info authentication.k8s.io/users///bob",
                    "impersonate:user-info authentication.k8s.io/groups///*",
                ],
                "bob [a, b, c, d, system:authenticated] impersonate:user-info".into(),
            ),
            (
                &[(USER, "bob"), ("impersonate-extra-scopes", "x")],
                vec!["impersonate-on:user-info:get /pods/log/prod/web", "impersonate:user-info authentication.k8s.io/users///bob"],
                "userextras.authentication.k8s.io is forbidden: User \"system:serviceaccount:prod:agent\" cannot \
                 impersonate:user-info resource \"userextras\" in API group \"authentication.k8s.io\" at the cluster \
                 scope: impersonating an invalid key in extra is not allowed: extra.key: Invalid value: \"scopes\": must be \
                 a domain-prefixed path (such as \"acme.io/foo\")"
                    .into(),
            ),
        ];
        assert_eq!(shown(&request()), format!("get {ON}"));
        for (sent, held, expected) in rows {
            let rights = Rights { held, ..Rights::default() };
            let mut map = HeaderMap::new();
            for (key, value) in sent {
                map.append(*key, value.parse().unwrap());
            }
            let said = match impersonated(&map, &agent(), &request(), &rights).await {
                Ok(other) => {
                    let other = other.unwrap();
                    let constraint = other.constraint.map(|verb| format!(" {verb}")).unwrap_or_default();
                    format!("{} [{}]{constraint}", other.user.username, other.user.groups.join(", "))
                }
                Err(error) => error.message,
            };
            assert_eq!(said, expected, "{sent:?}");
        }
    }
}
