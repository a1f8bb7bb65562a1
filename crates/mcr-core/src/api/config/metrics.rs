//! `[metrics]`: where Prometheus may ask.

use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;
use toml::Spanned;

use crate::refusal::{Code, Refusal};

/// `[metrics]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsSpec {
    /// `ADDRESS:PORT` to listen on by TCP.
    pub listen: Option<Spanned<String>>,
}

/// Where the metrics can be had besides the control socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MetricsOptions {
    /// By TCP, there.
    pub listen: Option<SocketAddr>,
}

/// The options, absent where the file says nothing of them; or which byte is wrong, and why.
pub(super) fn metrics_options(
    spec: Option<MetricsSpec>,
) -> Result<Option<MetricsOptions>, (usize, Refusal)> {
    let Some(MetricsSpec { listen }) = spec else { return Ok(None) };
    let Some(listen) = listen else { return Ok(Some(MetricsOptions::default())) };
    let at = listen.span().start;
    let address = listen_address(&listen.into_inner()).map_err(|refusal| (at, refusal))?;
    Ok(Some(MetricsOptions { listen: Some(address) }))
}

/// An address of this host, or one that stands for all of them, and a port.
fn listen_address(text: &str) -> Result<SocketAddr, Refusal> {
    let refused = |why: &str| {
        let message = format!("listen = {text:?} under [metrics] is no address to listen on{why}");
        let hint = "write ADDRESS:PORT of this host, as in 127.0.0.1:9464, [::1]:9464, or \
                    0.0.0.0:9464 for all addresses";
        Refusal::new(Code::Invalid, message, hint)
    };
    let address: SocketAddr = text.parse().map_err(|_| {
        let host = text.rsplit_once(':').map_or(text, |(host, _)| host);
        if text.parse::<IpAddr>().is_ok() {
            refused(": the port is missing")
        } else if host.contains(':') && !host.starts_with('[') {
            refused(": an IPv6 address stands in brackets")
        } else {
            refused("")
        }
    })?;
    if address.port() == 0 {
        return Err(refused(": port 0 would be another at each start"));
    }
    if address.ip().is_multicast() {
        return Err(refused(": it is a multicast group"));
    }
    Ok(address)
}
