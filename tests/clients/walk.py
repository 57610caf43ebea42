"""What programs do with a cluster, by Python's `kubernetes`. Prints what it saw; fails where something is not so."""

import base64
import os
import ssl
import sys

import websocket
from kubernetes import client, config, utils, watch

config.load_kube_config(sys.argv[1])
core, apps = client.CoreV1Api(), client.AppsV1Api()
NAMESPACE = "default"

assert client.VersionApi().get_code().major == "1"
assert "web" in [pod.metadata.name for pod in core.list_namespaced_pod(NAMESPACE).items]
assert core.list_node(label_selector="no=such").items == []
resources = {resource.name for resource in core.get_api_resources().resources}
assert {"pods", "pods/log", "configmaps"} <= resources, resources

# Create, patch, apply, replace, and a watch that sees it.
name = "from-python"
created = core.create_namespaced_config_map(NAMESPACE, {"metadata": {"name": name}, "data": {"a": "1"}})
core.patch_namespaced_config_map(name, NAMESPACE, {"data": {"b": "2"}})
applied = core.patch_namespaced_config_map(
    name,
    NAMESPACE,
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"c": "3"}},
    field_manager="python",
    force=True,
    _content_type="application/apply-patch+yaml",
)
assert applied.data == {"a": "1", "b": "2", "c": "3"}, applied.data
core.delete_namespaced_config_map(name, NAMESPACE)
seen = []
for event in watch.Watch().stream(
    core.list_namespaced_config_map,
    NAMESPACE,
    field_selector=f"metadata.name={name}",
    resource_version=created.metadata.resource_version,
    timeout_seconds=20,
):
    seen.append(event["type"])
    if event["type"] == "DELETED":
        break
assert seen == ["MODIFIED", "MODIFIED", "DELETED"], seen
utils.create_from_yaml(
    client.ApiClient(),
    yaml_objects=[
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": {"app": name}},
                "template": {
                    "metadata": {"labels": {"app": name}},
                    "spec": {"containers": [{"name": "c", "image": "i"}]},
                },
            },
        }
    ],
    namespace=NAMESPACE,
)
assert apps.read_namespaced_deployment_scale(name, NAMESPACE).spec.replicas == 2
apps.delete_namespaced_deployment(name, NAMESPACE)

# Refusals are Kubernetes' own.
try:
    core.read_namespaced_pod("nobody", NAMESPACE)
    raise AssertionError("there is nobody")
except client.ApiException as error:
    assert (error.status, error.reason) == (404, "Not Found"), error

# Logs: whole, followed, with times, and over WebSockets.
expected = "".join(f"line {number}\n" for number in range(600))
log = core.read_namespaced_pod_log("web", NAMESPACE, container="counter")
assert log == expected, log[-100:]
followed = core.read_namespaced_pod_log(
    "web", NAMESPACE, container="counter", follow=True, _preload_content=False
)
assert b"".join(followed.stream()).decode() == expected
stamped = core.read_namespaced_pod_log("web", NAMESPACE, container="counter", timestamps=True)
assert stamped.splitlines()[7].endswith("Z line 7"), stamped[:200]
host = client.Configuration.get_default_copy().host.replace("https", "wss")
configuration = client.Configuration.get_default_copy()
for protocols, unpack in [
    (None, bytes),
    (["binary.k8s.io"], bytes),
    (["base64.binary.k8s.io"], base64.b64decode),
]:
    socket = websocket.create_connection(
        f"{host}/api/v1/namespaces/{NAMESPACE}/pods/web/log?container=counter",
        subprotocols=protocols,
        sslopt={
            "ca_certs": configuration.ssl_ca_cert,
            "certfile": configuration.cert_file,
            "keyfile": configuration.key_file,
            "cert_reqs": ssl.CERT_REQUIRED,
        },
    )
    told = b""
    while True:
        opcode, data = socket.recv_data()
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            assert int.from_bytes(data[:2], "big") == 1000, data
            break
        told += unpack(data)
    assert told.decode() == expected, (protocols, told[-100:])

# Who am I, what may I, and a token for somebody else.
me = client.AuthenticationV1Api().create_self_subject_review({})
assert me.status.user_info.username == "admin", me
review = client.AuthorizationV1Api().create_self_subject_access_review(
    {"spec": {"resourceAttributes": {"verb": "get", "resource": "pods", "subresource": "log"}}}
)
assert review.status.allowed, review
token = core.create_namespaced_service_account_token(
    "default", NAMESPACE, client.AuthenticationV1TokenRequest(spec={"audiences": [], "expirationSeconds": 600})
)
somebody = client.Configuration.get_default_copy()
somebody.cert_file = somebody.key_file = None
somebody.api_key = {"authorization": f"Bearer {token.status.token}"}
with client.ApiClient(somebody) as connection:
    who = client.AuthenticationV1Api(connection).create_self_subject_review({})
    assert who.status.user_info.username == "system:serviceaccount:default:default", who
    try:
        client.CoreV1Api(connection).read_namespaced_pod_log("web", NAMESPACE, container="counter")
        raise AssertionError("this account may not read logs")
    except client.ApiException as error:
        assert error.status == 403 and "pods/log" in error.body, error
print("python is content")
