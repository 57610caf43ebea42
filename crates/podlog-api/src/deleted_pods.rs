//! Pods that are gone and whose logs are still there: how kubelets are asked for them, and what they say.
//!
//! A list is a JSON object of kind [`KIND`]; each of its items has `metadata`, the names of containers in `spec` and
//! `spec.nodeName` as the pod had them, and in `logs` what is there:
//! `{"deletedAt": …, "bytes": …, "containers": [{"name": …, "instances": [0, 1], "bytes": …, "endedAt": …}]}`.

use serde_json::{Value, json};

use crate::query::Query;

/// Where kubelets answer with their list.
pub const PATH: &str = "/podlog/deletedPods";
/// `kind` of a list.
pub const KIND: &str = "DeletedPodList";
/// `apiVersion` of a list.
pub const API_VERSION: &str = "podlog.dev/v1";

/// Which deleted pods are asked for; what is empty does not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Their namespace.
    pub namespace: String,
    /// Their name.
    pub name: String,
}

impl Wanted {
    /// Reads the query of a request to a kubelet.
    pub fn of_query(query: &str) -> Self {
        let query = Query::parse(query);
        let text = |name| query.first(name).unwrap_or_default().to_owned();
        Wanted { namespace: text("namespace"), name: text("name") }
    }

    /// Path and query of the request to a kubelet.
    pub fn path(&self) -> String {
        let mut query = Query::default();
        for (name, text) in [("namespace", &self.namespace), ("name", &self.name)] {
            if !text.is_empty() {
                query.set(name, text);
            }
        }
        let query = query.encode();
        if query.is_empty() { PATH.to_owned() } else { format!("{PATH}?{query}") }
    }

    /// Whether this pod is asked for.
    pub fn is(&self, namespace: &str, name: &str) -> bool {
        let fits = |wanted: &str, is: &str| wanted.is_empty() || wanted == is;
        fits(&self.namespace, namespace) && fits(&self.name, name)
    }
}

/// A list; `silent` are the nodes that could not be asked.
pub fn list(items: Vec<Value>, silent: &[String]) -> Value {
    json!({ "kind": KIND, "apiVersion": API_VERSION, "metadata": {}, "items": items, "silentNodes": silent })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_understood() {
        let wanted = |namespace: &str, name: &str| Wanted { namespace: namespace.into(), name: name.into() };
        for (asked, path) in [
            (wanted("", ""), PATH.to_owned()),
            (wanted("a", ""), format!("{PATH}?namespace=a")),
            (wanted("a", "b&c"), format!("{PATH}?name=b%26c&namespace=a")),
        ] {
            assert_eq!(asked.path(), path);
            let query = path.split_once('?').map_or("", |(_, query)| query);
            assert_eq!(Wanted::of_query(query), asked);
        }
        assert!(wanted("", "").is("a", "b") && wanted("a", "b").is("a", "b"));
        assert!(!wanted("a", "b").is("a", "c") && !wanted("b", "").is("a", "b"));
    }
}
