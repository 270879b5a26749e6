//! The staff's way in: a connection forwarded to one of the shop's api pods, and a session of a staff account.

use std::{io::Read as _, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use futures::TryFutureExt as _;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1::SendRequest, header};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{ResourceExt, api::ListParams};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use shop_operator::{crd::ShopDeployment, names::Component, rollout};
use shop_runtime::telemetry::chain;

use crate::cluster::Cluster;

/// Name of the api's port in its pods.
const HTTP: &str = "http";

/// Whose account is used. Never a password: an argument list is there for everyone to read.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Staff {
    /// A staff account, in place of the one in the shop's auth.staffSecretRef; its password is asked for
    #[arg(long)]
    email: Option<String>,
    /// A file with the password for --email, or - for standard input
    #[arg(long, value_name = "FILE", requires = "email", value_hint = clap::ValueHint::FilePath)]
    password_file: Option<PathBuf>,
}

struct Account {
    email: String,
    password: SecretString,
    /// Where they are from, for who must mend them.
    from: String,
}

/// A staff account's session with the shop.
pub struct Session {
    sender: SendRequest<Full<Bytes>>,
    token: SecretString,
    pod: String,
}

impl Session {
    /// Finds a ready api pod, connects to it through the API server, and logs in.
    pub async fn open(cluster: &Cluster, name: &str, staff: &Staff) -> Result<Self> {
        let shop = cluster.shop(name).await?;
        let account = account(cluster, &shop, staff).await?;
        let (pod, port) = api_pod(cluster, &shop).await?;
        let mut session = Self { sender: connect(cluster, (&pod, port)).await?, token: SecretString::default(), pod };
        let credentials = json!({ "email": account.email, "password": account.password.expose_secret() });
        let (status, answer) = session.send(Method::POST, "/api/v1/auth/login", Some(&credentials)).await?;
        match (status, answer["accessToken"].as_str()) {
            (StatusCode::OK, Some(token)) => session.token = token.to_owned().into(),
            (StatusCode::UNAUTHORIZED, _) => bail!(
                "the shop does not accept the account {} of {}\nif its password was changed in the shop, use --email",
                account.email,
                account.from
            ),
            (status, _) => bail!("the login was answered {}", told(status, &answer)),
        }
        Ok(session)
    }

    /// A call of the staff's; the answer of a good one.
    pub async fn call(&mut self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let (status, answer) = self.send(method, path, body).await?;
        match status {
            status if status.is_success() => Ok(answer),
            StatusCode::FORBIDDEN => bail!("the account is not the shop's staff: use --email with one that is"),
            status => bail!("the shop answered {}", told(status, &answer)),
        }
    }

    /// Ends the session in the shop too.
    pub async fn close(mut self) {
        // One that stays is over by itself, later.
        let _ = self.send(Method::POST, "/api/v1/auth/logout", Some(&json!({}))).await;
    }

    async fn send(&mut self, method: Method, path: &str, body: Option<&Value>) -> Result<(StatusCode, Value)> {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, self.pod.as_str());
        if !self.token.expose_secret().is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", self.token.expose_secret()));
        }
        let bytes = body.map(Value::to_string).unwrap_or_default();
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(Bytes::from(bytes))).context("cannot make a request")?;
        let lost = || format!("the connection to pod {} broke: try again", self.pod);
        self.sender.ready().await.with_context(lost)?;
        let answer = self.sender.send_request(request).await.with_context(lost)?;
        let status = answer.status();
        let body = answer.into_body().collect().await.with_context(lost)?.to_bytes();
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }
}

/// A refusal in the shop's own words.
fn told(status: StatusCode, answer: &Value) -> String {
    let words = answer["detail"].as_str().or_else(|| answer["title"].as_str()).unwrap_or("without a reason");
    format!("{}: {words}", status.as_u16())
}

async fn account(cluster: &Cluster, shop: &ShopDeployment, staff: &Staff) -> Result<Account> {
    if let Some(email) = &staff.email {
        let (password, from) = match &staff.password_file {
            Some(file) => (read_password(file)?, file.display().to_string()),
            None => (
                rpassword::prompt_password(format!("password of {email}: "))
                    .context("there is no terminal to ask for the password: use --password-file")?,
                "the prompt".to_owned(),
            ),
        };
        return Ok(Account { email: email.clone(), password: password.into(), from });
    }
    let Some(secret) = &shop.spec.auth.staff_secret_ref else {
        bail!(
            "shop {} names no staff account (auth.staffSecretRef): use --email with one that it has",
            shop.name_any()
        );
    };
    let doing =
        format!("read Secret {} in namespace {}, which holds the staff account", secret.name, cluster.namespace);
    let found = cluster.api::<Secret>().get(&secret.name).await.map_err(|error| cluster.problem(&doing, error))?;
    let text = |key: &str| {
        let bytes = found.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.clone());
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        text.with_context(|| format!("Secret {} has no key {key}, or no text in it", secret.name))
    };
    // A file's last line break is no part of them: the shop reads them so too.
    let [email, password] =
        [text("email")?, text("password")?].map(|text| text.trim_end_matches(['\r', '\n']).to_owned());
    Ok(Account { email, password: password.into(), from: format!("Secret {}", secret.name) })
}

fn read_password(file: &PathBuf) -> Result<String> {
    let mut text = String::new();
    if file.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text).context("cannot read the password from standard input")?;
    } else {
        text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    }
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// A ready api pod, and its port for HTTP.
async fn api_pod(cluster: &Cluster, shop: &ShopDeployment) -> Result<(String, u16)> {
    let name = shop.name_any();
    let selector = ListParams::default().labels(&Component::Api.selector_text(&name));
    let doing = format!("list the pods of namespace {}", cluster.namespace);
    let pods = cluster.api::<Pod>().list(&selector).await.map_err(|error| cluster.problem(&doing, error))?;
    let ready = pods.items.iter().find(|pod| pod.metadata.deletion_timestamp.is_none() && rollout::is_ready(pod));
    let pod = ready.with_context(|| {
        format!("no api pod of {name} is ready: `kubectl shop status {name} -n {}` shows why", cluster.namespace)
    })?;
    let port = http_port(pod).with_context(|| format!("pod {} has no port named {HTTP}", pod.name_any()))?;
    Ok((pod.name_any(), port))
}

fn http_port(pod: &Pod) -> Option<u16> {
    let mut ports = pod.spec.iter().flat_map(|spec| &spec.containers).flat_map(|one| one.ports.iter().flatten());
    let port = ports.find(|port| port.name.as_deref() == Some(HTTP))?;
    u16::try_from(port.container_port).ok()
}

async fn connect(cluster: &Cluster, (pod, port): (&str, u16)) -> Result<SendRequest<Full<Bytes>>> {
    let doing = format!("forward a connection to pod {pod} in namespace {}", cluster.namespace);
    let mut forwarder =
        cluster.api::<Pod>().portforward(pod, &[port]).await.map_err(|error| cluster.problem(&doing, error))?;
    let stream = forwarder.take_stream(port).with_context(|| format!("cannot {doing}"))?;
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.with_context(|| format!("cannot {doing}"))?;
    tokio::spawn(async move {
        let done = connection.map_err(|error| chain(&error)).await;
        drop((done, forwarder));
    });
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_password_file_may_end_in_a_line_break() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"correct horse \r\n").unwrap();
        assert_eq!(read_password(&file.path().to_owned()).unwrap(), "correct horse ");
        let missing = read_password(&PathBuf::from("/no/such/file")).unwrap_err();
        assert_eq!(missing.to_string(), "cannot read /no/such/file");
    }

    #[test]
    fn a_refusal_is_told_in_the_shops_words() {
        let problem = json!({ "title": "Too many requests", "detail": "try again in 3 s" });
        assert_eq!(told(StatusCode::TOO_MANY_REQUESTS, &problem), "429: try again in 3 s");
        assert_eq!(told(StatusCode::BAD_GATEWAY, &Value::Null), "502: without a reason");
    }
}
