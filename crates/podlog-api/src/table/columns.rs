//! Column definitions of each kind.

use serde_json::{Value, json};

/// One column of a table.
pub(super) struct Column {
    name: &'static str,
    type_name: &'static str,
    format: &'static str,
    description: &'static str,
    priority: u8,
}

impl Column {
    pub(super) fn to_value(&self) -> Value {
        json!({
            "name": self.name,
            "type": self.type_name,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        })
    }

    const fn text(name: &'static str, description: &'static str) -> Column {
        Column { name, type_name: "string", format: "", description, priority: 0 }
    }

    const fn typed(name: &'static str, type_name: &'static str, description: &'static str) -> Column {
        Column { name, type_name, format: "", description, priority: 0 }
    }

    /// Shown with `-o wide` only.
    const fn wide(mut self) -> Column {
        self.priority = 1;
        self
    }
}

const NAME: Column = Column {
    name: "Name",
    type_name: "string",
    format: "name",
    description: "Name of the object, unique within its namespace.",
    priority: 0,
};
const AGE: Column = Column::text("Age", "Time since the object was created.");
const CONTAINERS: Column = Column::text("Containers", "Names of the containers in the template.").wide();
const IMAGES: Column = Column::text("Images", "Images of the containers in the template.").wide();
const SELECTOR: Column = Column::text("Selector", "Labels of the pods that belong to the object.").wide();

pub(super) const GENERIC: &[Column] =
    &[NAME, Column::typed("Created At", "date", "When the object was created.")];

pub(super) const POD: &[Column] = &[
    NAME,
    Column::text("Ready", "Containers that are ready, of all containers."),
    Column::text("Status", "Phase of the pod, or why it is not further."),
    Column::text("Restarts", "How often containers were restarted, and when last."),
    AGE,
    Column::text("IP", "First address of the pod.").wide(),
    Column::text("Node", "Node that the pod is bound to.").wide(),
    Column::text("Nominated Node", "Node that the pod may run on once others have left it.").wide(),
    Column::text("Readiness Gates", "Readiness gates that are true, of all.").wide(),
];

pub(super) const NODE: &[Column] = &[
    NAME,
    Column::text("Status", "Whether the node is ready and takes pods."),
    Column::text("Roles", "Roles of the node, from its labels."),
    AGE,
    Column::text("Version", "Version of the kubelet."),
    Column::text("Internal-IP", "First internal address.").wide(),
    Column::text("External-IP", "First external address.").wide(),
    Column::text("OS-Image", "Operating system of the node.").wide(),
    Column::text("Kernel-Version", "Kernel and architecture of the node.").wide(),
    Column::text("Container-Runtime", "Container runtime and its version.").wide(),
];

pub(super) const NAMESPACE: &[Column] = &[NAME, Column::text("Status", "Phase of the namespace."), AGE];

pub(super) const CONFIG_MAP: &[Column] = &[NAME, Column::text("Data", "Number of entries."), AGE];

pub(super) const SECRET: &[Column] =
    &[NAME, Column::text("Type", "What the secret is for."), Column::text("Data", "Number of entries."), AGE];

pub(super) const SERVICE_ACCOUNT: &[Column] = &[NAME, AGE];

pub(super) const SERVICE: &[Column] = &[
    NAME,
    Column::text("Type", "How the service is reached."),
    Column::text("Cluster-IP", "Address inside the cluster."),
    Column::text("External-IP", "Addresses outside the cluster."),
    Column::text("Port(s)", "Ports and protocols."),
    AGE,
    SELECTOR,
];

pub(super) const EVENT: &[Column] = &[
    Column::text("Last Seen", "Time since it happened last."),
    Column::text("Type", "Normal or Warning."),
    Column::text("Reason", "What happened, in one word."),
    Column::text("Object", "What it happened to."),
    Column::text("Subobject", "Which part of the object.").wide(),
    Column::text("Source", "Who reported it.").wide(),
    Column::text("Message", "What happened."),
    Column::text("First Seen", "Time since it happened first.").wide(),
    Column::text("Count", "How often it happened.").wide(),
    Column { priority: 1, ..NAME },
];

pub(super) const DEPLOYMENT: &[Column] = &[
    NAME,
    Column::text("Ready", "Pods that are ready, of those wanted."),
    Column::text("Up-to-date", "Pods of the current template."),
    Column::text("Available", "Pods that have been ready for long enough."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(super) const REPLICA_SET: &[Column] = &[
    NAME,
    Column::typed("Desired", "integer", "Pods wanted."),
    Column::typed("Current", "integer", "Pods that exist."),
    Column::typed("Ready", "integer", "Pods that are ready."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(super) const STATEFUL_SET: &[Column] =
    &[NAME, Column::text("Ready", "Pods that are ready, of those wanted."), AGE, CONTAINERS, IMAGES];

pub(super) const DAEMON_SET: &[Column] = &[
    NAME,
    Column::typed("Desired", "integer", "Nodes that should run the pod."),
    Column::typed("Current", "integer", "Nodes that run the pod and should."),
    Column::typed("Ready", "integer", "Nodes whose pod is ready."),
    Column::typed("Up-to-date", "integer", "Nodes whose pod has the current template."),
    Column::typed("Available", "integer", "Nodes whose pod has been ready for long enough."),
    Column::text("Node Selector", "Labels of the nodes that are meant."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(super) const JOB: &[Column] = &[
    NAME,
    Column::text("Status", "How far the job is."),
    Column::text("Completions", "Pods that succeeded, of those wanted."),
    Column::text("Duration", "Time the job took, or has taken so far."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(super) const ROLE_BINDING: &[Column] = &[
    NAME,
    Column::text("Role", "Role that is granted."),
    AGE,
    Column::text("Users", "Users that it is granted to.").wide(),
    Column::text("Groups", "Groups that it is granted to.").wide(),
    Column::text("ServiceAccounts", "Service accounts that it is granted to.").wide(),
];

pub(super) const CERTIFICATE_REQUEST: &[Column] = &[
    NAME,
    AGE,
    Column::text("SignerName", "Who is to sign."),
    Column::text("Requestor", "Who asked for the certificate."),
    Column::text("RequestedDuration", "How long the certificate shall be valid."),
    Column::text("Condition", "How far the request is."),
];

pub(super) const REVISION: &[Column] = &[
    NAME,
    Column::text("Controller", "Whose template it was."),
    Column::text("Revision", "Number of the revision."),
    AGE,
];

pub(super) const SCALE: &[Column] = &[
    NAME,
    Column::typed("Desired", "integer", "How many there are to be."),
    Column::typed("Available", "integer", "How many there are."),
    AGE,
];

pub(super) const LEASE: &[Column] = &[NAME, Column::text("Holder", "Who holds the lease."), AGE];

pub(super) const ENDPOINT_SLICE: &[Column] = &[
    NAME,
    Column::text("AddressType", "Kind of the addresses."),
    Column::text("Ports", "Ports of the endpoints."),
    Column::text("Endpoints", "Addresses of the endpoints."),
    AGE,
];
