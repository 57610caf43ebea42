//! Asking an authorizer, and the proof that it allowed.

use podlog_api::{Attributes, Decision, UserInfo};

use crate::{Authorizer, AuthzError};

/// Proof that one request was authorized. Only [`authorize`] makes it; streaming a log takes it.
#[derive(Debug)]
pub struct Permit {
    user: UserInfo,
    attributes: Attributes,
    reason: String,
}

impl Permit {
    /// Who was allowed.
    pub fn user(&self) -> &UserInfo {
        &self.user
    }

    /// What was allowed.
    pub fn attributes(&self) -> &Attributes {
        &self.attributes
    }

    /// Why, e.g. `RBAC: allowed by RoleBinding …`.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// Why there is no [`Permit`].
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Nobody allows it, or somebody forbids it.
    #[error("forbidden: {reason}")]
    Forbidden {
        /// The authorizer's words; may be empty.
        reason: String,
    },
    /// No decision could be reached.
    #[error("no decision could be reached")]
    Error(#[source] AuthzError),
}

/// Asks whether `user` may do what `attributes` say. This is the only maker of [`Permit`].
///
/// No opinion is a refusal.
///
/// # Errors
/// [`Refusal`], when it is not allowed or nobody could tell.
pub async fn authorize(
    authorizer: &dyn Authorizer,
    user: &UserInfo,
    attributes: &Attributes,
) -> Result<Permit, Refusal> {
    match authorizer.authorize(user, attributes).await {
        Ok(Decision::Allow(reason)) => {
            Ok(Permit { user: user.clone(), attributes: attributes.clone(), reason })
        }
        Ok(Decision::Deny(reason) | Decision::NoOpinion(reason)) => Err(Refusal::Forbidden { reason }),
        Err(error) => Err(Refusal::Error(error)),
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;

    struct Fixed(Option<Decision>);

    #[async_trait]
    impl Authorizer for Fixed {
        async fn authorize(&self, _: &UserInfo, _: &Attributes) -> Result<Decision, AuthzError> {
            self.0.clone().ok_or_else(|| AuthzError("webhook is down".into()))
        }
    }

    #[tokio::test]
    async fn only_allow_makes_a_permit() {
        let user = UserInfo { username: "ann".into(), ..UserInfo::default() };
        let attributes = Attributes::NonResource { verb: "get".into(), path: "/healthz".into() };
        let rows = [
            (Some(Decision::Allow("because".into())), "because"),
            (Some(Decision::Deny("no".into())), "forbidden: no"),
            (Some(Decision::NoOpinion("dunno".into())), "forbidden: dunno"),
            (None, "no decision could be reached"),
        ];
        for (decision, expected) in rows {
            let said = match authorize(&Fixed(decision), &user, &attributes).await {
                Ok(permit) => {
                    assert_eq!((permit.user(), permit.attributes()), (&user, &attributes));
                    permit.reason().to_owned()
                }
                Err(refusal) => refusal.to_string(),
            };
            assert_eq!(said, expected);
        }
    }
}
