//! Names of users and groups, looked up in the image's own /etc/passwd and /etc/group.

use crate::view::LayerView;

/// Bytes that are read of /etc/passwd and /etc/group.
const MAX_BYTES: u64 = 4 << 20;

/// Numbers for `user[:group]`. A user without group brings its primary group if the name is known, else the group
/// with the user's number, as Docker has it.
pub(super) fn resolve_owner(text: &str, view: &LayerView) -> Result<(u64, u64), String> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let (uid, primary) = match number(user)? {
        Some(uid) => (uid, None),
        None => {
            let fields = find(view, "/etc/passwd", user)?.ok_or_else(|| {
                format!("the image has no user {user:?}; use a number or add it to /etc/passwd first")
            })?;
            let field = |at: usize| fields.get(at).and_then(|field| field.parse::<u32>().ok());
            let damaged = || format!("the line of user {user:?} in /etc/passwd is damaged");
            (field(2).ok_or_else(damaged)?, Some(field(3).ok_or_else(damaged)?))
        }
    };
    let gid = match group {
        None => primary.unwrap_or(uid),
        Some(group) => match number(group)? {
            Some(gid) => gid,
            None => find(view, "/etc/group", group)?
                .and_then(|fields| fields.get(2)?.parse().ok())
                .ok_or_else(|| {
                    format!("the image has no group {group:?}; use a number or add it to /etc/group first")
                })?,
        },
    };
    Ok((uid.into(), gid.into()))
}

/// `None` for a name.
fn number(text: &str) -> Result<Option<u32>, String> {
    if text.is_empty() {
        return Err("a user or group has no name".into());
    }
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| format!("{text} is too large for a user or group id"))
}

fn find(view: &LayerView, file: &str, name: &str) -> Result<Option<Vec<String>>, String> {
    let bytes = view
        .read_small(file, MAX_BYTES)
        .map_err(|error| format!("cannot read {file} of the image: {error}"))?;
    let text = String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
    Ok(text
        .lines()
        .map(|line| line.split(':').map(str::to_string).collect::<Vec<_>>())
        .find(|fields| fields[0] == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), "root:x:0:0::/:\napp:x:100:200::/:\n").unwrap();
        std::fs::write(dir.path().join("etc/group"), "www:x:33:\n").unwrap();
        let view = LayerView::new(vec![dir.path().into()]);
        for (text, ids) in
            [("app", (100, 200)), ("app:www", (100, 33)), ("7", (7, 7)), ("7:8", (7, 8)), ("0:www", (0, 33))]
        {
            assert_eq!(resolve_owner(text, &view), Ok(ids), "{text}");
        }
        for text in ["nobody", "1:none", "", "1:", "99999999999"] {
            assert!(resolve_owner(text, &view).is_err(), "{text}");
        }
    }
}
