//! Keys and certificates as others make them: kubeadm's keys are RSA in PKCS #1.

use std::path::Path;

use podlog_api::resource::find;
use podlog_serving::pki::KeyPairFiles;
use serde_json::Value;

use crate::harness::Cluster;
use crate::kubectl;

/// Makes something with openssl; says whether it could.
fn made(path: &Path, arguments: &str) -> bool {
    let (command, options) = arguments.split_once(' ').unwrap();
    let made = std::process::Command::new("openssl")
        .args([command, "-out"])
        .arg(path)
        .args(options.split(' '))
        .current_dir(path.parent().unwrap())
        .output();
    let Ok(made) = made else {
        eprintln!("SKIPPED: there is no openssl to make keys with.");
        return false;
    };
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_kind_sign_and_are_published() {
    let Some(kubectl) = kubectl::any() else { return };
    let rows = [
        ("genrsa -traditional 2048", "-----BEGIN RSA PRIVATE KEY", "RS256", "RSA"),
        ("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048", "-----BEGIN PRIVATE KEY", "RS256", "RSA"),
        ("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384", "-----BEGIN PRIVATE KEY", "ES384", "EC"),
    ];
    for (arguments, form, algorithm, kind) in rows {
        let keys = tempfile::tempdir().unwrap();
        let path = keys.path().join("sa.key");
        if !made(&path, arguments) {
            return;
        }
        assert!(std::fs::read_to_string(&path).unwrap().starts_with(form), "{arguments}");
        let cluster = Cluster::start_with(|config, _| config.service_account_key = path.clone()).await;
        let accounts = find("", "v1", "serviceaccounts").unwrap();
        let account = podlog_api::Object::new(serde_json::json!({"metadata": {"name": "robot"}}));
        cluster.server.registry().create(accounts, "default", account).await.unwrap();

        let run = |kubeconfig: &Path, arguments: &str| {
            let (code, said) = kubectl::run(&kubectl, kubeconfig, arguments);
            assert_eq!(code, 0, "{arguments}: {said}");
            said
        };
        let token = run(&cluster.kubeconfig(), "create token robot -n default");
        let robot = cluster.kubeconfig_with_token("robot", token.trim());
        let who = run(&robot, "auth whoami -o jsonpath={.status.userInfo.username}");
        assert_eq!(who, "system:serviceaccount:default:robot", "{arguments}");

        let published: Value =
            serde_json::from_str(&run(&cluster.kubeconfig(), "get --raw /openid/v1/jwks")).unwrap();
        let key = &published["keys"][0];
        assert_eq!((&key["kty"], &key["alg"], &key["use"]), (&kind.into(), &algorithm.into(), &"sig".into()));
        let header = jsonwebtoken_header(token.trim());
        assert_eq!((&header["alg"], &header["kid"]), (&algorithm.into(), &key["kid"]));
        let configuration = run(&cluster.kubeconfig(), "get --raw /.well-known/openid-configuration");
        let configuration: Value = serde_json::from_str(&configuration).unwrap();
        let algorithms = &configuration["id_token_signing_alg_values_supported"];
        assert_eq!(*algorithms, serde_json::json!([algorithm]));
    }
}

fn jsonwebtoken_header(token: &str) -> Value {
    use base64::Engine;
    let header = token.split('.').next().unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap()
}

/// A PKI as openssl makes it: RSA keys in PKCS #1, an authority, a server's and a client's certificate. Says whether it could.
fn rsa_pki(folder: &Path) -> bool {
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    write("server.ext", "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n");
    write("client.ext", "extendedKeyUsage=clientAuth\n");
    let make = |name: &str, arguments: &str| made(&folder.join(name), arguments);
    let certified = |name: &str, subject: &str| {
        let sign = format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -days 2 -extfile {name}.ext -set_serial 7"
        );
        make(&format!("{name}.csr"), &format!("req -new -key {name}.key -subj {subject}"))
            && make(&format!("{name}.crt"), &sign)
    };
    ["ca.key", "server.key", "client.key"].iter().all(|name| make(name, "genrsa -traditional 2048"))
        && make("ca.crt", "req -x509 -key ca.key -subj /CN=authority -days 2")
        && certified("server", "/CN=apiserver")
        && certified("client", "/O=system:masters/CN=rita")
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_with_rsa_keys_serve_and_name_users() {
    let Some(kubectl) = kubectl::any() else { return };
    let pki = tempfile::tempdir().unwrap();
    if !rsa_pki(pki.path()) {
        return;
    }
    let cluster = Cluster::start_with(|config, _| {
        config.serving = KeyPairFiles::in_folder(pki.path(), "server");
        config.client_ca = pki.path().join("ca.crt");
    })
    .await;
    let text = format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: c\n  cluster: {{server: 'https://{}', certificate-authority: ca.crt}}\n\
         users:\n- name: u\n  user: {{client-certificate: client.crt, client-key: client.key}}\n\
         contexts:\n- name: x\n  context: {{cluster: c, user: u}}\ncurrent-context: x\n",
        cluster.server.local_addr()
    );
    let kubeconfig = pki.path().join("kubeconfig");
    std::fs::write(&kubeconfig, text).unwrap();
    let whoami = "auth whoami -o jsonpath={.status.userInfo.username}";
    assert_eq!(kubectl::run(&kubectl, &kubeconfig, whoami), (0, "rita".to_owned()));
}
