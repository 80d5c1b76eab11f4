//! The client, from the pod's service account or a kubeconfig.
//!
//! Its parts are kube's; they are put together here, because kube's own stack logs each failure as an error, retries
//! unseen and waits for an answer without a limit.

use std::env;

use hyper_util::client::legacy::{Client as HttpClient, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt as _};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tower::ServiceBuilder;

use super::Kubernetes;
use super::error::{Error, Setup};

/// So many requests may follow each other at once: a list, a watch, the same again.
const BURST: u32 = 6;

/// Reads everything anew, so that what rotated is what is used.
pub(super) async fn make(settings: &Kubernetes) -> Result<Client, Error> {
    let config = config(settings).await.map_err(Box::new)?;
    build(&config, settings).map_err(|error| Box::new(error).into())
}

async fn config(settings: &Kubernetes) -> Result<Config, Setup> {
    let options = KubeConfigOptions::default();
    let set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    let config = if let Some(path) = &settings.kubeconfig {
        Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await?
    } else if !set("KUBECONFIG") && set("KUBERNETES_SERVICE_HOST") {
        Config::incluster()?
    } else {
        Config::from_kubeconfig(&options).await?
    };
    if config.proxy_url.is_some() {
        return Err(Setup::Proxy);
    }
    Ok(config)
}

fn build(config: &Config, settings: &Kubernetes) -> Result<Client, Setup> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    let connector = config
        .rustls_https_connector_with_connector(connector)
        .map_err(Setup::Client)?;
    let http = HttpClient::builder(TokioExecutor::new()).build::<_, Body>(connector);
    let service = ServiceBuilder::new()
        // A server that ends each watch at once is asked again at once, yet not without an end.
        .rate_limit(BURST.into(), settings.pause * BURST)
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(Setup::Client)?)
        .layer(config.extra_headers_layer().map_err(Setup::Client)?)
        // Until the head has come: a watch's body takes its time.
        .timeout(settings.limit)
        .service(http);
    Ok(Client::new(service, config.default_namespace.clone()))
}
