//! The rules that a start begins with.

use mcr_core::api::{Change, RuleSpec};
use mcr_core::refusal::{Code, Refusal};
use mcr_core::relay::{Guard, Request};
use mcr_core::rule::Rule;
use mcr_dataplane::{DataPlane, News};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::Daemon;
use crate::sources::Sources;

impl<P: DataPlane> Daemon<P> {
    /// Installs the rules of the files, and those that an earlier process has kept.
    pub(super) async fn start(
        &mut self,
        file: Vec<Rule>,
        sources: &mut Sources,
    ) -> Result<(), Refusal> {
        let check = |spec: RuleSpec| match spec.check() {
            Ok(rule) => Some(rule),
            Err(refusal) => {
                tracing::error!(%refusal, "kept rule dropped");
                None
            }
        };
        let mut runtime: Vec<Rule> =
            self.instance.kept_rules().into_iter().filter_map(check).collect();
        runtime.retain(|kept| {
            let twin = file.iter().find(|rule| rule.key() == kept.key());
            if twin.is_some_and(|rule| rule != kept) {
                let rule = kept.key();
                tracing::error!(%rule, "kept rule dropped: the configuration has another of the name");
            }
            twin.is_none()
        });
        let all = Request::Start { file: file.clone(), runtime: runtime.clone() };
        if let Err(refusal) = self.change_now(all, sources).await {
            // A file has since taken what a kept rule had: the file wins.
            tracing::warn!(%refusal, "not all kept rules fit the configuration");
            self.change_now(Request::Start { file, runtime: Vec::new() }, sources).await?;
            for rule in runtime {
                let request = Request::Start { file: Vec::new(), runtime: vec![rule] };
                if let Err(refusal) = self.change_now(request, sources).await {
                    tracing::error!(%refusal, "kept rule dropped");
                }
            }
        }
        sources.settle();
        self.plane.settle().await
    }

    /// A change of the daemon's own, carried out before anything else.
    async fn change_now(
        &mut self,
        request: Request,
        sources: &mut Sources,
    ) -> Result<Change, Refusal> {
        let (sender, mut receiver) = oneshot::channel();
        self.change(request, Guard::default(), Some(sender), sources).await;
        self.act(sources).await;
        loop {
            match receiver.try_recv() {
                Ok(result) => return result,
                Err(TryRecvError::Empty) => {
                    match self.plane.next().await {
                        News::Applied(applied) => self.relay.handle_applied(applied),
                        News::Event(event) => self.events.tell(&event),
                    }
                    self.act(sources).await;
                }
                Err(TryRecvError::Closed) => {
                    return Err(Refusal::new(Code::Internal, "the change was not answered", ""));
                }
            }
        }
    }
}
