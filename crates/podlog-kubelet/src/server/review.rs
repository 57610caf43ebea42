//! Asks the API server who a token belongs to and what a user may do, and remembers the answers for a while.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use http::request::Parts;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo as ApiUser};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec, SubjectAccessReviewStatus,
};
use kube::api::{Api, PostParams};
use parking_lot::Mutex;
use podlog_api::{Attributes, Decision, UserInfo};
use podlog_serving::{Authenticator, AuthnError, Authorizer, AuthzError, Peer, bearer_token};
use tokio::time::timeout;

use crate::objects::api_message;

/// How long the API server gets to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Answers that are remembered at once.
const REMEMBERED: usize = 4096;

/// Bearer tokens, by `TokenReview`.
pub(super) struct TokenReviews {
    client: kube::Client,
    life: Duration,
    answers: Remembered<String, Option<UserInfo>>,
}

impl TokenReviews {
    pub(super) fn new(client: kube::Client, life: Duration) -> Self {
        TokenReviews { client, life, answers: Remembered::default() }
    }

    async fn review(&self, token: &str) -> Result<Option<UserInfo>, AuthnError> {
        let review = TokenReview {
            spec: TokenReviewSpec { token: token.to_owned(), audiences: None },
            ..TokenReview::default()
        };
        let api = Api::<TokenReview>::all(self.client.clone());
        let status = ask(&api, &review).await.map_err(AuthnError)?.status.unwrap_or_default();
        let is_known = status.authenticated == Some(true);
        Ok(status.user.filter(|_| is_known).map(user_info))
    }
}

fn user_info(user: ApiUser) -> UserInfo {
    UserInfo {
        username: user.username.unwrap_or_default(),
        uid: user.uid.unwrap_or_default(),
        groups: user.groups.unwrap_or_default(),
        extra: user.extra.unwrap_or_default(),
    }
}

#[async_trait]
impl Authenticator for TokenReviews {
    async fn authenticate(&self, request: &Parts, _: &Peer) -> Result<Option<UserInfo>, AuthnError> {
        let Some(token) = bearer_token(request) else { return Ok(None) };
        let wrong = || AuthnError("invalid bearer token".into());
        if let Some(known) = self.answers.get(token) {
            return known.map(Some).ok_or_else(wrong);
        }
        let user = self.review(token).await?;
        self.answers.put(token.to_owned(), user.clone(), self.life);
        user.map(Some).ok_or_else(wrong)
    }
}

/// What users may do, by `SubjectAccessReview`.
pub(super) struct WebhookAuthorizer {
    client: kube::Client,
    allowed_life: Duration,
    refused_life: Duration,
    answers: Remembered<Question, Decision>,
}

/// What an answer is about.
type Question = (String, String, Vec<String>, BTreeMap<String, Vec<String>>, String, String);

impl WebhookAuthorizer {
    pub(super) fn new(client: kube::Client, allowed_life: Duration, refused_life: Duration) -> Self {
        WebhookAuthorizer { client, allowed_life, refused_life, answers: Remembered::default() }
    }
}

#[async_trait]
impl Authorizer for WebhookAuthorizer {
    async fn authorize(&self, user: &UserInfo, attributes: &Attributes) -> Result<Decision, AuthzError> {
        let Attributes::Resource { verb, group, version, resource, subresource, namespace, name, .. } =
            attributes
        else {
            return Ok(Decision::NoOpinion(String::new()));
        };
        let question: Question = (
            user.username.clone(),
            user.uid.clone(),
            user.groups.clone(),
            user.extra.clone(),
            verb.clone(),
            subresource.clone(),
        );
        if let Some(known) = self.answers.get(&question) {
            return Ok(known);
        }
        let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.username.clone()),
                uid: text(&user.uid),
                groups: Some(user.groups.clone()),
                extra: Some(user.extra.clone()),
                resource_attributes: Some(ResourceAttributes {
                    verb: text(verb),
                    group: text(group),
                    version: text(version),
                    resource: text(resource),
                    subresource: text(subresource),
                    namespace: text(namespace),
                    name: text(name),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let api = Api::<SubjectAccessReview>::all(self.client.clone());
        let status = ask(&api, &review).await.map_err(AuthzError)?.status.unwrap_or_default();
        let decision = decision(status);
        let life = if matches!(decision, Decision::Allow(_)) { self.allowed_life } else { self.refused_life };
        self.answers.put(question, decision.clone(), life);
        Ok(decision)
    }
}

/// What a review says; who is denied is not allowed, whatever else it says.
fn decision(status: SubjectAccessReviewStatus) -> Decision {
    let reason = status.reason.unwrap_or_default();
    match (status.denied, status.allowed) {
        (Some(true), _) => Decision::Deny(reason),
        (_, true) => Decision::Allow(reason),
        (_, false) => Decision::NoOpinion(reason),
    }
}

/// Sends a review; the error is a text.
async fn ask<K>(api: &Api<K>, review: &K) -> Result<K, String>
where
    K: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    match timeout(PATIENCE, api.create(&PostParams::default(), review)).await {
        Ok(answer) => answer.map_err(|error| api_message(&error)),
        Err(_) => Err("the API server does not answer".into()),
    }
}

/// Answers with an end of life.
struct Remembered<K, V>(Mutex<HashMap<K, (Instant, V)>>);

impl<K, V> Default for Remembered<K, V> {
    fn default() -> Self {
        Remembered(Mutex::new(HashMap::new()))
    }
}

impl<K: Hash + Eq, V: Clone> Remembered<K, V> {
    fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
    {
        let answers = self.0.lock();
        answers.get(key).filter(|(until, _)| Instant::now() < *until).map(|(_, value)| value.clone())
    }

    fn put(&self, key: K, value: V, life: Duration) {
        let mut answers = self.0.lock();
        let now = Instant::now();
        if answers.len() >= REMEMBERED {
            answers.retain(|_, (until, _)| now < *until);
        }
        if answers.len() >= REMEMBERED {
            answers.clear();
        }
        answers.insert(key, (now + life, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_forgotten_in_time_and_bounded() {
        let answers: Remembered<String, u32> = Remembered::default();
        answers.put("kept".into(), 1, Duration::from_secs(60));
        answers.put("over".into(), 2, Duration::ZERO);
        assert_eq!((answers.get("kept"), answers.get("over"), answers.get("none")), (Some(1), None, None));
        for i in 0..2 * REMEMBERED {
            answers.put(i.to_string(), 3, Duration::from_secs(60));
        }
        assert!(answers.0.lock().len() <= REMEMBERED);
    }

    #[test]
    fn who_is_denied_is_not_allowed() {
        for (allowed, denied, expected) in [
            (true, None, Decision::Allow("why".into())),
            (true, Some(false), Decision::Allow("why".into())),
            (true, Some(true), Decision::Deny("why".into())),
            (false, Some(true), Decision::Deny("why".into())),
            (false, None, Decision::NoOpinion("why".into())),
        ] {
            let reason = Some("why".to_owned());
            let status = SubjectAccessReviewStatus { allowed, denied, reason, evaluation_error: None };
            assert_eq!(decision(status), expected, "{allowed} {denied:?}");
        }
    }
}
