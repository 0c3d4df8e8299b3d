//! A folder that is made and tried before the work whose results it is to take.

use crate::failure::{Failure, Kind, Result};
use std::path::{Path, PathBuf};

/// The folders that had to be made for it. Those that are still empty go with this.
pub struct Room {
    /// The outermost first.
    made: Vec<PathBuf>,
}

impl Room {
    /// Makes the folder and writes a file into it, so that what cannot be written is known before it is there.
    pub fn make(folder: &Path) -> Result<Room> {
        let missing = folder.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists());
        let mut made: Vec<PathBuf> = missing.map(Path::to_owned).collect();
        made.reverse();
        // Dropped on failure, it takes away what could be made.
        let room = Room { made };
        let probe = folder.join(format!(".throng-probe-{}", std::process::id()));
        let tried = std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&probe, b"x"))
            .and_then(|()| std::fs::remove_file(&probe));
        match tried {
            Ok(()) => Ok(room),
            Err(error) => {
                // It may have been made by a write that failed for want of space.
                let _ = std::fs::remove_file(&probe);
                let message = format!("cannot write the report into {}: {error}", folder.display());
                Err(Failure::new(Kind::Host, message)
                    .hint("choose a folder that you may write to with --out"))
            }
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        for folder in self.made.iter().rev() {
            // Refused where something is in it by now, as it should be.
            let _ = std::fs::remove_dir(folder);
        }
    }
}
