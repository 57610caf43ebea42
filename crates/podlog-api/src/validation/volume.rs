//! Volumes of a pod.

use std::collections::HashSet;

use serde_json::Value;

use super::container::{field_reference, local_path};
use super::field::{Errors, child, index, list, text};
use crate::names;

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// Fields that a downward API file may show.
const FIELD_PATHS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// Checks volumes and returns the names that containers may mount.
pub(super) fn volumes<'v>(volumes: &'v [Value], path: &str, errors: &mut Errors) -> HashSet<&'v str> {
    let mut taken = HashSet::new();
    for (i, volume) in volumes.iter().enumerate() {
        let at = index(path, i);
        source(volume, &at, errors);
        let name = text(volume, "name");
        let wrong = names::dns_label(name);
        if name.is_empty() {
            errors.required(child(&at, "name"), "");
        } else if wrong.is_empty() && !taken.insert(name) {
            errors.duplicate(child(&at, "name"), name);
        } else {
            errors.invalid_all(&child(&at, "name"), name, wrong);
        }
    }
    taken
}

fn source(volume: &Value, path: &str, errors: &mut Errors) {
    let kinds: Vec<&String> =
        volume.as_object().into_iter().flatten().map(|(key, _)| key).filter(|key| *key != "name").collect();
    let Some((first, others)) = kinds.split_first() else {
        return errors.required(path, "must specify a volume type");
    };
    for kind in others {
        errors.forbidden(child(path, kind), "may not specify more than 1 volume type");
    }
    let at = child(path, first);
    let source = &volume[first.as_str()];
    match first.as_str() {
        "hostPath" => host_path(source, &at, errors),
        "configMap" => {
            named(text(source, "name"), &child(&at, "name"), errors);
            files(source, &at, errors);
        }
        "secret" => {
            named(text(source, "secretName"), &child(&at, "secretName"), errors);
            files(source, &at, errors);
        }
        "downwardAPI" => {
            mode(&source["defaultMode"], &child(&at, "defaultMode"), errors);
            downward_files(list(source, "items"), &at, errors);
        }
        "projected" => projected(source, &at, errors),
        _ => {}
    }
}

fn named(name: &str, path: &str, errors: &mut Errors) {
    if name.is_empty() {
        errors.required(path, "");
    }
}

fn host_path(source: &Value, path: &str, errors: &mut Errors) {
    let target = text(source, "path");
    if target.is_empty() {
        return errors.required(child(path, "path"), "");
    }
    if target.split('/').any(|part| part == "..") {
        errors.invalid(child(path, "path"), target, "must not contain '..'");
    }
    const TYPES: [&str; 8] =
        ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    let kind = text(source, "type");
    if !TYPES.contains(&kind) {
        errors.unsupported(child(path, "type"), kind, &TYPES);
    }
}

fn mode(value: &Value, path: &str, errors: &mut Errors) {
    if let Some(mode) = value.as_i64().filter(|mode| !(0..=0o777).contains(mode)) {
        errors.invalid(path, mode, MODE);
    }
}

/// `defaultMode` and `items` of a config map, a secret or a projection of one.
fn files(source: &Value, path: &str, errors: &mut Errors) {
    mode(&source["defaultMode"], &child(path, "defaultMode"), errors);
    for (i, item) in list(source, "items").iter().enumerate() {
        let at = index(&child(path, "items"), i);
        named(text(item, "key"), &child(&at, "key"), errors);
        named(text(item, "path"), &child(&at, "path"), errors);
        local_path(text(item, "path"), &child(&at, "path"), errors);
        mode(&item["mode"], &child(&at, "mode"), errors);
    }
}

fn downward_files(items: &[Value], path: &str, errors: &mut Errors) {
    for item in items {
        named(text(item, "path"), &child(path, "path"), errors);
        local_path(text(item, "path"), &child(path, "path"), errors);
        match (item["fieldRef"].is_object(), item["resourceFieldRef"].is_object()) {
            (true, false) => {
                field_reference(&item["fieldRef"], &child(path, "fieldRef"), &FIELD_PATHS, errors);
            }
            (false, true) => {}
            (true, true) => errors.invalid(
                path,
                "resource",
                "fieldRef and resourceFieldRef can not be specified simultaneously",
            ),
            (false, false) => errors.required(path, "one of fieldRef and resourceFieldRef is required"),
        }
        mode(&item["mode"], &child(path, "mode"), errors);
    }
}

fn projected(source: &Value, path: &str, errors: &mut Errors) {
    mode(&source["defaultMode"], &child(path, "defaultMode"), errors);
    for (i, projection) in list(source, "sources").iter().enumerate() {
        let at = index(&child(path, "sources"), i);
        for kind in ["configMap", "secret"] {
            if projection[kind].is_object() {
                let at = child(&at, kind);
                named(text(&projection[kind], "name"), &child(&at, "name"), errors);
                files(&projection[kind], &at, errors);
            }
        }
        if projection["downwardAPI"].is_object() {
            downward_files(list(&projection["downwardAPI"], "items"), &child(&at, "downwardAPI"), errors);
        }
        if projection["serviceAccountToken"].is_object() {
            token(&projection["serviceAccountToken"], &child(&at, "serviceAccountToken"), errors);
        }
    }
}

fn token(token: &Value, path: &str, errors: &mut Errors) {
    if let Some(seconds) = token["expirationSeconds"].as_i64() {
        let field = child(path, "expirationSeconds");
        if seconds < 600 {
            errors.invalid(&field, seconds, "may not specify a duration less than 10 minutes");
        }
        if seconds > 1 << 32 {
            errors.invalid(&field, seconds, "may not specify a duration larger than 2^32 seconds");
        }
    }
    named(text(token, "path"), &child(path, "path"), errors);
}
