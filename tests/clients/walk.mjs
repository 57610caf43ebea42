// What programs do with a cluster, by `@kubernetes/client-node`. Prints what it saw; fails where something is not so.
// NODE_PATH does not count for modules: the library's folder comes as an argument.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { PassThrough } from "node:stream";

const [, , kubeconfig, folder] = process.argv;
const k8s = createRequire(`${folder}/`)("@kubernetes/client-node");
const config = new k8s.KubeConfig();
config.loadFromFile(kubeconfig);
const namespace = "default";
const core = config.makeApiClient(k8s.CoreV1Api);

const pods = await core.listNamespacedPod({ namespace });
assert(pods.items.some((pod) => pod.metadata.name === "web"));
const code = await config.makeApiClient(k8s.VersionApi).getCode();
assert.equal(code.major, "1");

// Create, patch, apply, delete, and a watch that sees it.
const name = "from-node";
const seen = [];
const created = await core.createNamespacedConfigMap({ namespace, body: { metadata: { name }, data: { a: "1" } } });
const ended = new Promise((resolve, reject) => {
  new k8s.Watch(config)
    .watch(
      `/api/v1/namespaces/${namespace}/configmaps`,
      { resourceVersion: created.metadata.resourceVersion, fieldSelector: `metadata.name=${name}` },
      (type) => {
        seen.push(type);
        if (type === "DELETED") resolve();
      },
      (error) => reject(error ?? new Error("the watch ended early")),
    )
    .then((controller) => ended.finally(() => controller.abort()).catch(() => {}));
});
const merge = k8s.setHeaderOptions("Content-Type", k8s.PatchStrategy.StrategicMergePatch);
await core.patchNamespacedConfigMap({ namespace, name, body: { data: { b: "2" } } }, merge);
const objects = k8s.KubernetesObjectApi.makeApiClient(config);
const applied = await objects.patch(
  { apiVersion: "v1", kind: "ConfigMap", metadata: { name, namespace }, data: { c: "3" } },
  undefined,
  undefined,
  "node",
  true,
  k8s.PatchStrategy.ServerSideApply,
);
assert.deepEqual(applied.data, { a: "1", b: "2", c: "3" });
await core.deleteNamespacedConfigMap({ namespace, name });
await ended;
assert.deepEqual(seen, ["MODIFIED", "MODIFIED", "DELETED"]);
await assert.rejects(core.readNamespacedPod({ namespace, name: "nobody" }), (error) => error.code === 404);

// Logs, whole and followed.
const expected = Array.from({ length: 600 }, (_, number) => `line ${number}\n`).join("");
const whole = await core.readNamespacedPodLog({ namespace, name: "web", container: "counter" });
assert.equal(whole, expected);
const stream = new PassThrough();
let followed = "";
stream.on("data", (chunk) => (followed += chunk));
await new k8s.Log(config).log(namespace, "web", "counter", stream, { follow: true, timestamps: false });
await new Promise((resolve, reject) => stream.on("end", resolve).on("error", reject));
assert.equal(followed, expected);

// Who am I, what may I, and a token for somebody else.
const reviews = config.makeApiClient(k8s.AuthorizationV1Api);
const attributes = { verb: "get", resource: "pods", subresource: "log", namespace };
const review = await reviews.createSelfSubjectAccessReview({ body: { spec: { resourceAttributes: attributes } } });
assert.equal(review.status.allowed, true);
const me = await config.makeApiClient(k8s.AuthenticationV1Api).createSelfSubjectReview({ body: {} });
assert.equal(me.status.userInfo.username, "admin");
const body = { spec: { audiences: [], expirationSeconds: 600 } };
const token = await core.createNamespacedServiceAccountToken({ namespace, name: "default", body });
assert(token.status.token.split(".").length === 3);
console.log("node is content");
process.exit(0);
