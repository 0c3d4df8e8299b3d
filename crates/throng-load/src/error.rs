use std::borrow::Cow;

/// Why a load could not be carried out at all. Failed requests are not errors of the load: they are counted in
/// its result, by [`ErrorKind`].
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{what}")]
    Spec { what: String, hint: Cow<'static, str> },
    #[error("cannot resolve {host}")]
    Resolve {
        host: String,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot prepare TLS")]
    Tls {
        hint: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("cannot encode a {width} × {height} picture")]
    Picture {
        width: u16,
        height: u16,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("cannot start a load thread")]
    Thread(#[source] std::io::Error),
    #[error("a load thread ended before its work was done")]
    ThreadLost,
    #[error("cannot read the recorded histogram")]
    Histogram(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("cannot write the histogram log")]
    Log(#[source] std::io::Error),
}

impl LoadError {
    pub(crate) fn spec(what: impl Into<String>, hint: impl Into<Cow<'static, str>>) -> Self {
        LoadError::Spec { what: what.into(), hint: hint.into() }
    }

    /// What to do about it, one sentence without a full stop.
    pub fn hint(&self) -> Option<&str> {
        match self {
            LoadError::Spec { hint, .. } => Some(hint),
            LoadError::Tls { hint, .. } => Some(hint),
            LoadError::Resolve { .. } => Some("check the name, or give the address to dial"),
            LoadError::Picture { .. } => Some("choose another size or format"),
            LoadError::Thread(_) => Some("lower the number of threads, or raise the limit of processes"),
            LoadError::ThreadLost => Some("this is a defect, please report it with the messages above"),
            LoadError::Histogram(_) => Some("the record was made by something else or is damaged"),
            LoadError::Log(_) => None,
        }
    }
}

/// Why one request did not succeed. `name` gives the keys of `LoadResult::errors`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorKind {
    /// Nobody accepted the connection.
    Connect,
    /// This machine ran out of descriptors, or of local ports: a limit of the generator, not of the service.
    LocalDescriptors,
    LocalPorts,
    /// The TLS handshake failed.
    Tls,
    /// Not over within the time limit.
    Timeout,
    /// The peer reset the connection.
    Reset,
    /// The peer closed the connection before the answer began.
    Closed,
    /// The peer closed the connection inside the answer.
    Truncated,
    /// The answer is not HTTP.
    Protocol,
    /// More redirects than allowed, or one without a usable `Location`.
    Redirect,
    /// An answer with a status that does not count as success.
    Status(u16),
    /// An answer over HTTP/2 whose `grpc-status` is not 0.
    Grpc(u32),
    /// Open loop: due while the backlog was at its limit, so never sent.
    Dropped,
    /// Open loop: still waiting for a connection when the time after the schedule's end was up.
    Unsent,
}

impl ErrorKind {
    pub fn name(self) -> String {
        match self {
            ErrorKind::Connect => "connect".into(),
            ErrorKind::LocalDescriptors => "local: no free descriptor".into(),
            ErrorKind::LocalPorts => "local: no free port".into(),
            ErrorKind::Tls => "tls".into(),
            ErrorKind::Timeout => "timeout".into(),
            ErrorKind::Reset => "reset".into(),
            ErrorKind::Closed => "closed".into(),
            ErrorKind::Truncated => "truncated".into(),
            ErrorKind::Protocol => "protocol".into(),
            ErrorKind::Redirect => "redirect".into(),
            ErrorKind::Status(code) => format!("status {code}"),
            ErrorKind::Grpc(code) => format!("grpc {code}"),
            ErrorKind::Dropped => "dropped".into(),
            ErrorKind::Unsent => "unsent".into(),
        }
    }

    /// What to do about the failures that a limit causes, by their name in a result.
    pub fn hint(name: &str) -> Option<&'static str> {
        let kinds = [
            (ErrorKind::Dropped, "allow more connections or a longer backlog, or lower the rate"),
            (ErrorKind::Unsent, "allow more connections or a longer time limit, or lower the rate"),
            (ErrorKind::LocalDescriptors, "raise the limit of open files: `ulimit -n`"),
            (
                ErrorKind::LocalPorts,
                "widen the sysctl net.ipv4.ip_local_port_range, or keep connections alive",
            ),
            (ErrorKind::Redirect, "allow more redirects; only those to the same origin are followed"),
            (ErrorKind::Timeout, "give a longer time limit if slow answers are acceptable"),
        ];
        kinds.into_iter().find(|(kind, _)| kind.name() == name).map(|(_, hint)| hint)
    }

    /// What an I/O error on an established connection is called.
    pub(crate) fn of_stream(error: &std::io::Error) -> ErrorKind {
        use std::io::ErrorKind as Io;
        match error.kind() {
            Io::UnexpectedEof => ErrorKind::Truncated,
            Io::InvalidData => ErrorKind::Tls,
            Io::TimedOut => ErrorKind::Timeout,
            _ => ErrorKind::Reset,
        }
    }

    /// What an I/O error while dialling is called.
    pub(crate) fn of_dial(error: &std::io::Error) -> ErrorKind {
        match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
            Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE) => ErrorKind::LocalDescriptors,
            Some(rustix::io::Errno::ADDRNOTAVAIL) => ErrorKind::LocalPorts,
            _ => ErrorKind::Connect,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn limits_of_this_machine_are_not_blamed_on_the_service() {
        use rustix::io::Errno;
        for (errno, kind) in [
            (Errno::CONNREFUSED, ErrorKind::Connect),
            (Errno::HOSTUNREACH, ErrorKind::Connect),
            (Errno::MFILE, ErrorKind::LocalDescriptors),
            (Errno::ADDRNOTAVAIL, ErrorKind::LocalPorts),
        ] {
            assert_eq!(ErrorKind::of_dial(&io::Error::from_raw_os_error(errno.raw_os_error())), kind);
        }
        for kind in
            [ErrorKind::LocalDescriptors, ErrorKind::LocalPorts, ErrorKind::Dropped, ErrorKind::Unsent]
        {
            assert!(ErrorKind::hint(&kind.name()).is_some(), "{kind:?}");
        }
        assert_eq!(ErrorKind::hint(&ErrorKind::Status(500).name()), None);
    }
}
