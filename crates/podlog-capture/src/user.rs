//! Who a program runs as.

use std::fs;
use std::path::Path;

use podlog_container::User;
use rustix::fs::{FileType, Gid, Uid, fchown, fstat};
use rustix::process::{getegid, geteuid, getgroups};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::text::failed;
use crate::view::Privilege;

/// Ids and home directory a program gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    /// Home directory.
    pub(crate) home: String,
}

/// Who is asking: capture's own ids.
struct Own {
    uid: u32,
    gid: u32,
}

impl Identity {
    /// Looks a user up in the user database of the view.
    pub(crate) fn resolve(user: &User) -> Self {
        let read = |path| fs::read_to_string(Path::new(path)).unwrap_or_default();
        let own = Own { uid: geteuid().as_raw(), gid: getegid().as_raw() };
        resolve(user, &own, &read("/etc/passwd"), &read("/etc/group"))
    }

    /// Becomes this user for good.
    ///
    /// # Errors
    /// When that takes privileges that capture does not have.
    pub(crate) fn assume(&self, privilege: Privilege) -> Result<(), String> {
        match privilege {
            Privilege::Host if geteuid().is_root() => self.change(),
            Privilege::Host | Privilege::OwnIdsOnly { .. } => self.check_own(),
        }
    }

    fn change(&self) -> Result<(), String> {
        self.own_stdio();
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        let groups: Vec<_> = self.groups.iter().copied().map(Gid::from_raw).collect();
        set_thread_groups(&groups).map_err(failed(format!("setgroups {:?}", self.groups)))?;
        set_thread_res_gid(gid, gid, gid).map_err(failed(format!("setgid {}", self.gid)))?;
        set_thread_res_uid(uid, uid, uid).map_err(failed(format!("setuid {}", self.uid)))
    }

    /// Lets the program open `/dev/stdout` and the like, which are pipes of capture's user. That some descriptor cannot be
    /// given away only matters to programs that try.
    fn own_stdio(&self) {
        let (uid, gid) = (Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)));
        for descriptor in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
            let is_pipe =
                fstat(descriptor).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
            if is_pipe || rustix::termios::isatty(descriptor) {
                let _ = fchown(descriptor, uid, gid);
            }
        }
    }

    fn check_own(&self) -> Result<(), String> {
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        let held = getgroups().unwrap_or_default();
        let holds = |group: &u32| *group == gid || held.contains(&Gid::from_raw(*group));
        if self.uid != uid {
            return Err(format!("cannot run as user {}: podlog runs as user {uid}, not as root", self.uid));
        }
        match [self.gid].iter().chain(&self.groups).find(|group| !holds(group)) {
            Some(group) => {
                Err(format!("cannot run with group {group}: podlog runs as user {uid}, not as root"))
            }
            None => Ok(()),
        }
    }
}

/// containerd's rules: another user has the group of its entry in `passwd`, else 0; the groups of `group` that name the user, and
/// the supplemental ones.
fn resolve(user: &User, own: &Own, passwd: &str, group: &str) -> Identity {
    let uid = user.uid.unwrap_or(own.uid);
    let entry = passwd.lines().find_map(|line| PasswdEntry::parse(line).filter(|entry| entry.uid == uid));
    let unnamed = || if uid == own.uid { own.gid } else { entry.as_ref().map_or(0, |entry| entry.gid) };
    let gid = user.gid.unwrap_or_else(unnamed);
    let named = entry.as_ref().map_or_else(Vec::new, |entry| groups_of(entry.name, group));
    // Without root only the groups that were asked for can be an error.
    let inherited = if own.uid == 0 { named } else { Vec::new() };
    let mut groups: Vec<u32> =
        inherited.into_iter().chain(user.supplemental_groups.iter().copied()).collect();
    groups.sort_unstable();
    groups.dedup();
    let home = entry.map(|entry| entry.home).filter(|home| !home.is_empty()).unwrap_or("/");
    Identity { uid, gid, groups, home: home.to_owned() }
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> PasswdEntry<'a> {
    /// `name:password:uid:gid:comment:home:shell`
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Self { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
    }
}

/// `group:password:gid:member,member`
fn groups_of(name: &str, group: &str) -> Vec<u32> {
    let member_of = |line: &str| {
        let mut fields = line.split(':').skip(2);
        let gid = fields.next()?.parse().ok()?;
        fields.next()?.split(',').any(|member| member == name).then_some(gid)
    };
    group.lines().filter_map(member_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\n# comment\nweb:x:33:34:www:/var/www:/bin/false\nbare:x:40:41\n";
    const GROUP: &str = "root:x:0:\nlogs:x:4:web,other\nbad\nssl:x:5:other,web\n";

    #[test]
    fn resolves_as_containerd() {
        let user = |uid, gid, groups: &[u32]| User { uid, gid, supplemental_groups: groups.to_vec() };
        let identity = |uid, gid, groups: &[u32], home: &str| Identity {
            uid,
            gid,
            groups: groups.to_vec(),
            home: home.to_owned(),
        };
        let rows = [
            (0, user(None, None, &[]), identity(0, 0, &[], "/root")),
            (0, user(Some(33), None, &[9, 4]), identity(33, 34, &[4, 5, 9], "/var/www")),
            (0, user(Some(33), Some(7), &[]), identity(33, 7, &[4, 5], "/var/www")),
            (0, user(Some(1234), None, &[1]), identity(1234, 0, &[1], "/")),
            (0, user(Some(40), None, &[]), identity(40, 41, &[], "/")),
            (0, user(None, Some(7), &[]), identity(0, 7, &[], "/root")),
            (33, user(None, None, &[]), identity(33, 33, &[], "/var/www")),
            (33, user(Some(33), None, &[8]), identity(33, 33, &[8], "/var/www")),
        ];
        for (own, user, expected) in rows {
            let own = Own { uid: own, gid: own };
            assert_eq!(resolve(&user, &own, PASSWD, GROUP), expected, "{user:?}");
        }
    }
}
