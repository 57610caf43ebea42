//! Which server, as whom: kubeconfig files and the flags that override them.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderValue, Uri, header};
use kube::config::{
    AuthInfo, Cluster, Context, KubeConfigOptions, Kubeconfig, NamedAuthInfo, NamedCluster, NamedContext,
};
use podlog_api::go;

use crate::{ClientError, Connection, GoDuration};

/// kubectl's flags about the connection.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionOptions {
    /// Path to the kubeconfig file [default: $KUBECONFIG, or ~/.kube/config].
    #[arg(long, value_name = "FILE", global = true)]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig to use.
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// Cluster of the kubeconfig to use.
    #[arg(long, global = true)]
    pub cluster: Option<String>,
    /// User of the kubeconfig to use.
    #[arg(long, global = true)]
    pub user: Option<String>,
    /// Namespace of this request [default: the context's, or `default`].
    #[arg(short = 'n', long, global = true)]
    pub namespace: Option<String>,
    /// Address and port of the API server.
    #[arg(short = 's', long, value_name = "URL", global = true)]
    pub server: Option<String>,
    /// Bearer token to authenticate with. Visible to other users of this machine: prefer a kubeconfig.
    #[arg(long, global = true)]
    pub token: Option<String>,
    /// User to act as.
    #[arg(long = "as", value_name = "USER", global = true)]
    pub impersonate: Option<String>,
    /// Group to act as a member of; may be repeated.
    #[arg(long = "as-group", value_name = "GROUP", global = true)]
    pub impersonate_groups: Vec<String>,
    /// Uid to act as.
    #[arg(long = "as-uid", value_name = "UID", global = true)]
    pub impersonate_uid: Option<String>,
    /// Do not verify the server's certificate: the connection is then not secure.
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_default_value = true, value_name = "BOOL", value_parser = go::parse_bool)]
    pub insecure_skip_tls_verify: bool,
    /// File of the certificate authority that the server's certificate comes from.
    #[arg(long, value_name = "FILE", global = true)]
    pub certificate_authority: Option<PathBuf>,
    /// File of the certificate to authenticate with.
    #[arg(long, value_name = "FILE", global = true)]
    pub client_certificate: Option<PathBuf>,
    /// File of its key.
    #[arg(long, value_name = "FILE", global = true)]
    pub client_key: Option<PathBuf>,
    /// Name that the server's certificate must have, if it is not the server's address.
    #[arg(long, value_name = "NAME", global = true)]
    pub tls_server_name: Option<String>,
    /// How long to wait for an answer, e.g. 5s; 0 waits as long as it takes.
    #[arg(long, value_name = "DURATION", default_value = "0", global = true, value_parser = request_timeout)]
    pub request_timeout: GoDuration,
}

/// Whole numbers are seconds, as kubectl reads this flag alone.
fn request_timeout(text: &str) -> Result<GoDuration, String> {
    match text.parse::<i64>() {
        Ok(seconds) => Ok(GoDuration::from_seconds(seconds)),
        Err(_) => text.parse(),
    }
}

const OVERRIDE: &str = "command line";

impl ConnectionOptions {
    /// Reads kubeconfig and flags. Nothing is sent yet.
    ///
    /// # Errors
    /// When a file cannot be read or does not have what is asked for, or names no server.
    pub async fn connect(&self) -> Result<Connection, ClientError> {
        let kubeconfig = self.read_kubeconfig(std::env::var_os("KUBECONFIG"), std::env::var_os("HOME"))?;
        let mut config = match self.select(kubeconfig)? {
            Some(kubeconfig) => {
                kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                    .await
                    .map_err(|error| ClientError::Invalid(chain(&error)))?
            }
            None => kube::Config::incluster().map_err(|_| ClientError::Invalid(NO_CONFIG.into()))?,
        };
        if let Some(namespace) = &self.namespace {
            config.default_namespace.clone_from(namespace);
        }
        finish(&mut config);
        let server = host_and_port(&config.cluster_url);
        let namespace = config.default_namespace.clone();
        let client =
            kube::Client::try_from(config.clone()).map_err(|error| ClientError::Invalid(chain(&error)))?;
        let connection = Connection::new(client, namespace, server).with_config(config);
        Ok(connection.with_request_timeout(self.timeout()))
    }

    fn timeout(&self) -> Option<Duration> {
        self.request_timeout.positive()
    }

    /// The files of `--kubeconfig`, `$KUBECONFIG` or the home directory; of a list, those that exist are merged.
    fn read_kubeconfig(
        &self,
        variable: Option<std::ffi::OsString>,
        home: Option<std::ffi::OsString>,
    ) -> Result<Kubeconfig, ClientError> {
        if let Some(file) = &self.kubeconfig {
            return read(file);
        }
        let files: Vec<PathBuf> = match variable.filter(|value| !value.is_empty()) {
            Some(list) => std::env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect(),
            None => home.map(|home| Path::new(&home).join(".kube/config")).into_iter().collect(),
        };
        let existing = files.iter().filter(|file| file.exists());
        existing.map(|file| read(file)).try_fold(Kubeconfig::default(), |merged, next| {
            merged.merge(next?).map_err(|error| ClientError::Invalid(chain(&error)))
        })
    }

    /// The kubeconfig reduced to what is used, flags applied; `None` when nothing names a server.
    fn select(&self, kubeconfig: Kubeconfig) -> Result<Option<Kubeconfig>, ClientError> {
        let context = self.chosen_context(&kubeconfig)?;
        let (cluster_name, user_name) = (
            self.cluster.clone().unwrap_or_else(|| context.cluster.clone()),
            self.user.clone().or_else(|| context.user.clone()),
        );
        let known_cluster = kubeconfig.clusters.iter().find(|cluster| cluster.name == cluster_name);
        if known_cluster.is_none()
            && let Some(name) = &self.cluster
        {
            return Err(ClientError::Invalid(format!("cluster {name:?} does not exist")));
        }
        let known_user = kubeconfig.auth_infos.iter().find(|user| Some(&user.name) == user_name.as_ref());
        if known_user.is_none()
            && let Some(name) = &self.user
        {
            return Err(ClientError::Invalid(format!("auth info {name:?} does not exist")));
        }
        let mut cluster = known_cluster.and_then(|named| named.cluster.clone()).unwrap_or_default();
        let mut user = known_user.and_then(|named| named.auth_info.clone()).unwrap_or_default();
        self.override_cluster(&mut cluster);
        self.override_user(&mut user);
        if cluster.server.as_deref().unwrap_or_default().is_empty() {
            return Ok(None);
        }
        let context = Context { cluster: OVERRIDE.into(), user: Some(OVERRIDE.into()), ..context };
        Ok(Some(Kubeconfig {
            clusters: vec![NamedCluster {
                name: OVERRIDE.into(),
                cluster: Some(cluster),
                ..NamedCluster::default()
            }],
            auth_infos: vec![NamedAuthInfo {
                name: OVERRIDE.into(),
                auth_info: Some(user),
                ..NamedAuthInfo::default()
            }],
            contexts: vec![NamedContext {
                name: OVERRIDE.into(),
                context: Some(context),
                ..NamedContext::default()
            }],
            current_context: Some(OVERRIDE.into()),
            ..Kubeconfig::default()
        }))
    }

    fn chosen_context(&self, kubeconfig: &Kubeconfig) -> Result<Context, ClientError> {
        let name =
            self.context.as_ref().or(kubeconfig.current_context.as_ref()).filter(|name| !name.is_empty());
        let Some(name) = name else { return Ok(Context::default()) };
        let found = kubeconfig.contexts.iter().find(|context| &context.name == name);
        match found.and_then(|named| named.context.clone()) {
            Some(context) => Ok(context),
            None if self.context.is_none() => Ok(Context::default()),
            None => Err(ClientError::Invalid(format!("context {name:?} does not exist"))),
        }
    }

    fn override_cluster(&self, cluster: &mut Cluster) {
        if let Some(server) = &self.server {
            let url = if server.contains("://") { server.clone() } else { format!("http://{server}") };
            cluster.server = Some(url);
        }
        if let Some(file) = &self.certificate_authority {
            cluster.certificate_authority = Some(file.to_string_lossy().into_owned());
            cluster.certificate_authority_data = None;
        }
        if self.insecure_skip_tls_verify {
            cluster.insecure_skip_tls_verify = Some(true);
            cluster.certificate_authority = None;
            cluster.certificate_authority_data = None;
        }
        if self.tls_server_name.is_some() {
            cluster.tls_server_name.clone_from(&self.tls_server_name);
        }
    }

    fn override_user(&self, user: &mut AuthInfo) {
        if let Some(token) = &self.token {
            *user = AuthInfo { token: Some(token.clone().into()), ..AuthInfo::default() };
        }
        if let (Some(certificate), Some(key)) = (&self.client_certificate, &self.client_key) {
            user.client_certificate = Some(certificate.to_string_lossy().into_owned());
            user.client_certificate_data = None;
            user.client_key = Some(key.to_string_lossy().into_owned());
            user.client_key_data = None;
        }
        if self.impersonate.is_some() {
            user.impersonate.clone_from(&self.impersonate);
        }
        if !self.impersonate_groups.is_empty() {
            user.impersonate_groups = Some(self.impersonate_groups.clone());
        }
        if self.impersonate_uid.is_some() {
            user.impersonate_uid.clone_from(&self.impersonate_uid);
        }
    }
}

const NO_CONFIG: &str = "no configuration has been provided: name a kubeconfig with --kubeconfig or KUBECONFIG, or a server with --server";

fn read(file: &Path) -> Result<Kubeconfig, ClientError> {
    Kubeconfig::read_from(file).map_err(|error| {
        ClientError::Invalid(format!(
            "error loading config file {:?}: {}",
            file.display().to_string(),
            chain(&error)
        ))
    })
}

fn finish(config: &mut kube::Config) {
    // Following may be silent for hours, and a refusal is for the caller to act upon.
    config.read_timeout = None;
    config.default_retry = false;
    config
        .headers
        .push((header::USER_AGENT, HeaderValue::from_static(concat!("podlog/", env!("CARGO_PKG_VERSION")))));
    if is_loopback(&config.cluster_url) {
        // As Go: a proxy does not stand between us and ourselves.
        config.proxy_url = None;
    }
}

fn is_loopback(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn host_and_port(url: &Uri) -> String {
    url.authority().map(|authority| authority.to_string()).unwrap_or_default()
}

/// An error with its causes, each once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
apiVersion: v1
kind: Config
current-context: one
clusters:
- name: a
  cluster: {server: https://a:6443, certificate-authority: /a.crt}
- name: b
  cluster: {server: https://b:6443}
users:
- name: ann
  user: {token: secret}
- name: bob
  user: {username: bob, password: pw}
contexts:
- name: one
  context: {cluster: a, user: ann, namespace: prod}
- name: two
  context: {cluster: b, user: bob}
";

    fn selected(change: impl FnOnce(&mut ConnectionOptions)) -> Result<String, String> {
        let mut options = ConnectionOptions::default();
        change(&mut options);
        let found =
            options.select(Kubeconfig::from_yaml(FILE).unwrap()).map_err(|error| error.to_string())?;
        let Some(found) = found else { return Ok("nothing".into()) };
        let (cluster, context) =
            (found.clusters[0].cluster.clone().unwrap(), found.contexts[0].context.clone().unwrap());
        let user = found.auth_infos[0].auth_info.clone().unwrap();
        let who = user
            .username
            .or(user.token.map(|_| "token".into()))
            .or(user.client_certificate)
            .unwrap_or_default();
        Ok(format!(
            "{} {} {who} {} {}",
            cluster.server.unwrap_or_default(),
            cluster.certificate_authority.unwrap_or_default(),
            context.namespace.unwrap_or_default(),
            user.impersonate.unwrap_or_default(),
        ))
    }

    #[test]
    fn flags_win_over_the_file() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(selected(|_| ()).unwrap(), "https://a:6443 /a.crt token prod ");
        assert_eq!(selected(|o| o.context = some("two")).unwrap(), "https://b:6443  bob  ");
        assert_eq!(selected(|o| o.cluster = some("b")).unwrap(), "https://b:6443  token prod ");
        assert_eq!(selected(|o| o.user = some("bob")).unwrap(), "https://a:6443 /a.crt bob prod ");
        assert_eq!(selected(|o| o.server = some("c:1")).unwrap(), "http://c:1 /a.crt token prod ");
        assert_eq!(selected(|o| o.insecure_skip_tls_verify = true).unwrap(), "https://a:6443  token prod ");
        assert_eq!(
            selected(|o| o.impersonate = some("eve")).unwrap(),
            "https://a:6443 /a.crt token prod eve"
        );
        assert_eq!(selected(|o| o.context = some("no")).unwrap_err(), "error: context \"no\" does not exist");
        assert_eq!(selected(|o| o.cluster = some("no")).unwrap_err(), "error: cluster \"no\" does not exist");
        assert_eq!(selected(|o| o.user = some("no")).unwrap_err(), "error: auth info \"no\" does not exist");
    }

    #[test]
    fn files_of_a_list_are_merged_and_missing_ones_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        std::fs::write(&one, FILE).unwrap();
        std::fs::write(&two, FILE.replace("current-context: one", "current-context: two")).unwrap();
        let options = ConnectionOptions::default();
        let list = |files: &[&Path]| std::env::join_paths(files).unwrap();
        let current = |variable, home| options.read_kubeconfig(variable, home).unwrap().current_context;
        let missing = folder.path().join("missing");
        assert_eq!(current(Some(list(&[&missing, &one, &two])), None).as_deref(), Some("one"));
        assert_eq!(current(Some(list(&[&two, &one])), None).as_deref(), Some("two"));
        assert_eq!(current(None, None), None);
        std::fs::create_dir(folder.path().join(".kube")).unwrap();
        std::fs::copy(&two, folder.path().join(".kube/config")).unwrap();
        assert_eq!(current(None, Some(folder.path().into())).as_deref(), Some("two"));
        let named = ConnectionOptions { kubeconfig: Some(missing.clone()), ..ConnectionOptions::default() };
        let error = named.read_kubeconfig(None, None).unwrap_err().to_string();
        assert!(error.starts_with(&format!("error: error loading config file {missing:?}: ")), "{error}");
    }
}
