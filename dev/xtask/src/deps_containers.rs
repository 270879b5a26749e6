//! The containers of the four servers: made, started and asked whether they let us in.
//! Which servers and where is `servers.rs`; the images are `deps_images.rs`.

use std::fs;
use std::io::{Read as _, Write as _};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::command::wait_until;
use crate::context::{Context, key_of, write_state};
use crate::deps_images::ServerImage;
use crate::docker::{Docker, LABEL, NETWORK};
use crate::mongo::{self, Value};
use crate::net;
use crate::progress::note;
use crate::servers::{MONGODB_USER, Server, Settings, random_hex};

/// What it takes to start a server.
pub struct Start<'a> {
    pub context: &'a Context,
    pub docker: &'a Docker,
    pub settings: &'a Settings,
}

impl Start<'_> {
    pub fn ensure_container(&self, server: Server, image: &ServerImage) -> Result<()> {
        let (docker, name, port) = (self.docker, server.container(), server.port(self.settings.ports));
        let shape = format!("{}{port}{:?}{}", image.name, arguments(server, image), self.settings.mongodb_password);
        let key = key_of(&[], &shape)?;
        let status = docker.container_status(&name);
        match docker.label("container", &name, LABEL) {
            Some(found) if found == key && status.as_deref() == Some("running") => return Ok(()),
            Some(found) if found == key => return docker.run().args(["start", &name]).read().map(drop),
            None if status.is_some() => bail!("there is a container {name} that is not ours: rename or remove it"),
            _ => docker.remove_containers(&[&name])?,
        }
        self.create(server, image, &key)
    }

    fn create(&self, server: Server, image: &ServerImage, key: &str) -> Result<()> {
        let (docker, name, volume) = (self.docker, server.container(), server.volume());
        let is_there = docker.run().args(["volume", "inspect", &volume]).succeeds();
        if is_there && docker.label("volume", &volume, LABEL).is_none() {
            bail!(
                "there is a volume {volume} that is not ours: remove it with `docker volume rm {volume}` if it is not needed"
            );
        }
        docker.run().args(["volume", "create", "--label", &format!("{LABEL}={server}"), &volume]).read()?;
        // A file, not arguments: those are seen by everybody on this machine.
        let env_file = self.context.state().join(format!("{name}.env"));
        write_state(&env_file, &environment(self.settings, server))?;
        let publish = format!("127.0.0.1:{}:{}", server.port(self.settings.ports), server.inner_port());
        let create = docker.run().args(["create", "--name", &name, "--hostname", &name, "--network", NETWORK]);
        let create = create.args(["--publish", &publish, "--volume", &format!("{volume}:{}", server.data_folder())]);
        let create = create.args(["--memory", server.memory(), "--restart", "unless-stopped"]);
        let create = create.args(["--label", &format!("{LABEL}={key}"), "--env-file"]).arg(&env_file);
        let created = create.args(arguments(server, image)).read();
        fs::remove_file(&env_file).context("removing the file with the credentials")?;
        created?;
        if server == Server::Sqs {
            let config = self.context.kind_dir().join("deps/sqs/elasticmq.conf");
            docker.run().arg("cp").arg(config).arg(format!("{name}:/opt/elasticmq.conf")).read()?;
        }
        docker.run().args(["start", &name]).read().map(drop)
    }
}

fn environment(settings: &Settings, server: Server) -> String {
    match server {
        Server::Mongodb => format!("MONGODB_KEY={}\n", settings.mongodb_password),
        Server::Redis => format!("REDIS_PASSWORD={}\n", settings.redis_password),
        Server::Sqs | Server::Ses => String::new(),
    }
}

/// Options, image and command: what differs between the public images and the stand-ins.
fn arguments(server: Server, image: &ServerImage) -> Vec<String> {
    const REDIS: &str = "umask 077; printf 'port 6379\\nbind 0.0.0.0\\ndir /data\\nappendonly yes\\nmaxmemory 200mb\\n\
                         maxmemory-policy volatile-lru\\nrequirepass %s\\n' \"$REDIS_PASSWORD\" > /tmp/redis.conf; \
                         exec redis-server /tmp/redis.conf";
    // A replica set with users needs a key that its members share, also when there is one member.
    const MONGODB: &str = "umask 077; printf %s \"$MONGODB_KEY\" > /data/configdb/key; chown mongodb /data/configdb/key; \
                           exec docker-entrypoint.sh mongod --replSet shop --keyFile /data/configdb/key --bind_ip_all";
    let script = match server {
        Server::Redis => Some(REDIS),
        Server::Mongodb if image.public => Some(MONGODB),
        _ => None,
    };
    let words: Vec<&str> = match script {
        Some(script) => vec!["--entrypoint", "bash", &image.name, "-c", script],
        // The public SQS image runs as a user who may not write to a fresh volume.
        None if server == Server::Sqs => vec!["--user", "0:0", &image.name],
        None => vec![&image.name],
    };
    words.into_iter().map(str::to_owned).collect()
}

pub fn wait_healthy(docker: &Docker, settings: &Settings, server: Server, image: &ServerImage) -> Result<()> {
    let result = wait_until(Duration::from_secs(90), &server.container(), || {
        if server == Server::Mongodb && check(settings, server).is_err() {
            set_up_mongodb(docker, settings, image)?;
        }
        check(settings, server)
    });
    result.with_context(|| {
        let logs = docker.run().args(["logs", "--tail", "10", &server.container()]).read().unwrap_or_default();
        format!("the last lines of `docker logs {}`:\n{logs}\n", server.container())
    })?;
    note(format!("{server}: answers on 127.0.0.1:{}", server.port(settings.ports)));
    Ok(())
}

/// The server answers and lets us in.
pub fn check(settings: &Settings, server: Server) -> Result<()> {
    let port = server.port(settings.ports);
    match server {
        Server::Mongodb => {
            let mut stream = net::connect(port)?;
            let hello = mongo::ask(&mut stream, vec![("hello", Value::Int(1))])?;
            hello.ensure_ok()?;
            if hello.number("isWritablePrimary") != Some(1.0) {
                bail!("MongoDB is not the primary of its replica set yet");
            }
            mongo::authenticate(&mut stream, MONGODB_USER, &settings.mongodb_password, &random_hex()?)
        }
        Server::Redis => check_redis(port, &settings.redis_password),
        Server::Sqs => expect_ok(port, "/?Action=ListQueues&Version=2012-11-05"),
        Server::Ses => expect_ok(port, "/store"),
    }
}

fn check_redis(port: u16, password: &str) -> Result<()> {
    let mut stream = net::connect(port)?;
    stream.write_all(format!("AUTH {password}\r\nPING\r\nQUIT\r\n").as_bytes()).context("asking Redis")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("reading Redis's answer")?;
    if answer.starts_with("+OK\r\n+PONG") { Ok(()) } else { bail!("Redis answers {}", answer.trim()) }
}

fn expect_ok(port: u16, path: &str) -> Result<()> {
    let (status, _) = net::http_get(port, path)?;
    if status == 200 { Ok(()) } else { bail!("port {port} answers {status}") }
}

/// Makes the replica set and the first user, which MongoDB allows from its own loopback while there is no user.
fn set_up_mongodb(docker: &Docker, settings: &Settings, image: &ServerImage) -> Result<()> {
    const USER_EXISTS: i64 = 51003;
    const UNAUTHORIZED: i64 = 13;
    const ALREADY_INITIALIZED: i64 = 23;
    if image.public {
        let member =
            vec![("_id", Value::Int(0)), ("host", format!("{}:27017", Server::Mongodb.container()).as_str().into())];
        let members = Value::Array(vec![Value::Document(member)]);
        let set = Value::Document(vec![("_id", "shop".into()), ("members", members)]);
        let answer = ask_inside(docker, vec![("replSetInitiate", set)])?;
        if !matches!(answer.code(), Some(ALREADY_INITIALIZED | UNAUTHORIZED)) {
            answer.ensure_ok()?;
        }
    }
    let role = vec![("role", "root".into()), ("db", "admin".into())];
    let user = vec![
        ("createUser", MONGODB_USER.into()),
        ("pwd", settings.mongodb_password.as_str().into()),
        ("roles", Value::Array(vec![Value::Document(role)])),
    ];
    let answer = ask_inside(docker, user)?;
    if matches!(answer.code(), Some(USER_EXISTS | UNAUTHORIZED)) {
        return Ok(());
    }
    answer.ensure_ok()
}

/// Speaks to MongoDB from inside its container; bash is the client.
fn ask_inside(docker: &Docker, command: Vec<(&'static str, Value)>) -> Result<mongo::Answer> {
    let pipe = "exec 3<>/dev/tcp/127.0.0.1/27017; cat >&3; dd bs=64k count=1 <&3 2>/dev/null";
    let bash = docker.run().args(["exec", "-i", &Server::Mongodb.container(), "bash", "-c", pipe]);
    mongo::answer(&bash.input(mongo::message(command)).read_bytes()?)
}
