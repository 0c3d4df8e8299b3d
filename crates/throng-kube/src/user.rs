//! `user`: who a container's program runs as. Kubernetes knows users by their numbers alone.

/// `1000:1000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct User {
    pub uid: i64,
    pub gid: Option<i64>,
}

/// The largest number of a user or group that the API server takes.
const MOST: i64 = i32::MAX as i64;

/// `None` for names that only the image knows. `root` is 0 everywhere.
pub(crate) fn numeric(user: Option<&str>) -> Option<User> {
    let user = user?;
    let (uid, gid) = match user.split_once(':') {
        Some((uid, gid)) => (uid, Some(gid)),
        None => (user, None),
    };
    let number = |text: &str| match text {
        "root" => Some(0),
        text => text.parse().ok().filter(|number| (0..=MOST).contains(number)),
    };
    let gid = match gid {
        Some(gid) => Some(number(gid)?),
        None => None,
    };
    Some(User { uid: number(uid)?, gid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_by_number() {
        for (text, user) in [
            ("1000:100", Some(User { uid: 1000, gid: Some(100) })),
            ("1000", Some(User { uid: 1000, gid: None })),
            ("root", Some(User { uid: 0, gid: None })),
            ("node", None),
            ("1000:staff", None),
            ("-1", None),
        ] {
            assert_eq!(numeric(Some(text)), user, "{text}");
        }
    }
}
