//! COPY and ADD: where files come from, and the layer that is made of them. What RUN binds comes the same way.

use super::super::ignore::Ignore;
use super::super::transfer::{Job, JobError};
use super::super::{find_stage, read_ignore, users};
use super::*;
use crate::dockerfile::Transfer;
use crate::store::Scratch;
use std::fs;

impl StageBuilder<'_> {
    pub(super) async fn transfer(&self, transfer: &Transfer, place: &Place) -> Step<Outcome> {
        let base = LayerView::new(self.unpacked(&self.built).await?);
        let (from, ignore) = self.origin(transfer.from.as_deref(), place).await?;
        let mut job = self.job(transfer, place, base, from)?;
        job.ignore = ignore;
        // The files that the Dockerfile itself holds, as long as they are copied.
        let _scratch = match transfer.files.as_slice() {
            [] => None,
            _ => Some(self.write_files(transfer, &mut job, place)?),
        };
        let (layer, cached) = self.copied(job, self.chain(), place).await?;
        Ok(Outcome::Layer { layer, cached })
    }

    /// Carries a job out over the layers of `chain`, or finds what it gave before.
    pub(super) async fn copied(
        &self,
        job: Job,
        chain: Option<String>,
        place: &Place,
    ) -> Step<(Option<Layer>, bool)> {
        let store = self.shared.store.clone();
        let planned = blocking(move || {
            let plan = job.plan()?;
            let key = job.key(&plan, chain.as_ref())?;
            Ok::<_, JobError>((job, plan, key))
        });
        let (job, plan, key) = planned.await.map_err(|error| job_failed(place, error))?;
        if let Some(layer) = self.cached(&key)? {
            return Ok((layer, true));
        }
        let written = blocking(move || {
            let layer = job.write(&store, &plan)?;
            cache::put(&store, &key, layer.as_ref())?;
            Ok::<_, JobError>(layer)
        });
        let layer = written.await.map_err(|error| job_failed(place, error))?;
        Ok((layer, false))
    }

    /// Where an instruction copies or mounts from, and what is left out there.
    pub(super) async fn origin(
        &self,
        from: Option<&str>,
        place: &Place,
    ) -> Step<(LayerView, Option<Ignore>)> {
        let options = self.shared.options;
        let Some(from) = from else {
            let failed = ImageError::io("use the build context", &options.context);
            let context = fs::canonicalize(&options.context).map_err(failed)?;
            return Ok((LayerView::new(vec![context]), Some((*self.shared.ignore).clone())));
        };
        let name = self.expand(place, |expander| expander.word(from).map_err(|error| error.to_string()))?;
        let view = match options.contexts.get(&name) {
            Some(ContextSource::Folder(folder)) => {
                let found =
                    fs::canonicalize(folder).map_err(ImageError::io("use the build context", folder))?;
                let ignore = read_ignore(None, &found)?;
                return Ok((LayerView::new(vec![found]), Some(ignore)));
            }
            Some(ContextSource::Image(image)) => self.image(image, place).await?,
            None => self.stage_or_image(&name, place).await?,
        };
        Ok((view, None))
    }

    /// The files of an earlier stage or of an image.
    async fn stage_or_image(&self, name: &str, place: &Place) -> Step<LayerView> {
        let stages = &self.shared.dockerfile.stages;
        let stage = find_stage(stages, name, self.at).and_then(|at| self.done.get(&at));
        if let Some(built) = stage {
            return Ok(LayerView::new(self.unpacked(built).await?));
        }
        if find_stage(stages, name, stages.len()).is_some() {
            let finding = place.error(format!("the stage {name:?} is not an earlier one")).hint("move it up");
            return Err(written(finding));
        }
        self.image(name, place).await
    }

    async fn image(&self, name: &str, place: &Place) -> Step<LayerView> {
        let image = find_image(self.shared.store, name, place)?;
        let store = self.shared.store.clone();
        Ok(LayerView::new(blocking(move || store.layers(&image)).await?))
    }

    fn write_files(&self, transfer: &Transfer, job: &mut Job, place: &Place) -> Step<Scratch> {
        use std::os::unix::fs::PermissionsExt as _;
        let scratch = self.shared.store.scratch()?;
        for file in &transfer.files {
            let text = match file.literal {
                true => file.content(),
                false => self.expand(place, |expander| {
                    expander.literal(&file.content()).map_err(|error| error.to_string())
                })?,
            };
            let path = scratch.path().join(&file.name);
            fs::write(&path, text)
                .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o644)))
                .map_err(ImageError::io("write", &path))?;
            job.files.push((file.name.clone(), path));
        }
        Ok(scratch)
    }

    fn job(&self, transfer: &Transfer, place: &Place, base: LayerView, from: LayerView) -> Step<Job> {
        let (sources, destination, owner, mode) = self.expand(place, |expander| {
            let word = |text: &String| metadata::transfer_word(text, transfer.quoted, expander);
            let flag = |text: &String| expander.word(text).map_err(|error| error.to_string());
            let sources = transfer.sources.iter().map(word).collect::<Result<Vec<_>, _>>()?;
            let destination = word(&transfer.destination)?;
            Ok((sources, destination, transfer.owner.as_ref().map(flag), transfer.mode.as_ref().map(flag)))
        })?;
        let extract = place.keyword == "ADD";
        let exclude = self.expand(place, |expander| {
            let word = |text: &String| expander.word(text).map_err(|error| error.to_string());
            transfer.exclude.iter().map(word).collect::<Result<Vec<_>, _>>()
        })?;
        let exclude = Ignore::of(&exclude);
        for source in &sources {
            check_local(source, place)?;
        }
        let owner = owner
            .map(|owner| users::resolve_owner(&owner?, &base))
            .transpose()
            .map_err(|error| wrong(place, format!("--chown: {error}")))?;
        let mode = mode
            .map(|mode| {
                let mode = mode?;
                u32::from_str_radix(&mode, 8)
                    .ok()
                    .filter(|bits| *bits <= 0o7777)
                    .ok_or_else(|| format!("--chmod: {mode:?} is not an octal mode such as 755"))
            })
            .transpose()
            .map_err(|error| wrong(place, error))?;
        let mut target = metadata::absolute(&destination, &self.built.config.config.working_dir);
        let says_folder =
            destination.ends_with('/') || matches!(destination.rsplit('/').next(), Some("." | ".."));
        if says_folder && target != "/" {
            target.push('/');
        }
        let (mtime, limits) = (self.shared.options.source_date_epoch, self.shared.store.limits());
        Ok(Job {
            sources,
            destination: target,
            from,
            ignore: None,
            base,
            owner,
            mode,
            extract,
            exclude,
            parents: transfer.parents,
            files: Vec::new(),
            mtime,
            limits,
        })
    }
}

/// Sources on the network are Docker's own business.
fn check_local(source: &str, place: &Place) -> Step<()> {
    let lower = source.to_ascii_lowercase();
    let remote = ["http://", "https://", "ftp://", "git://", "git@", "ssh://"]
        .iter()
        .any(|scheme| lower.starts_with(scheme));
    if !remote {
        return Ok(());
    }
    let finding = place
        .error(format!("fetching {source} is not supported"))
        .hint("fetch it before the build, put it into the context, and copy it");
    Err(written(finding))
}

fn job_failed(place: &Place, error: JobError) -> BuildError {
    match error {
        JobError::Wrong { message, hint } => {
            let finding = place.error(message);
            written(if let Some(hint) = hint { finding.hint(hint) } else { finding })
        }
        JobError::Image(error) => failed(place, error),
    }
}
