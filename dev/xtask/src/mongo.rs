//! Just enough of MongoDB's wire protocol to set a server up and to see that it lets us in.
//! No driver: it would triple the time to build xtask.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

const OP_MSG: i32 = 2013;
const HEADER: usize = 16;
const LARGEST_ANSWER: usize = 1 << 20;

/// What a command is made of.
#[derive(Clone, Debug)]
pub enum Value {
    Int(i32),
    Text(String),
    Bytes(Vec<u8>),
    Document(Vec<(&'static str, Value)>),
    Array(Vec<Value>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// The plain fields of an answer.
#[derive(Debug, Default)]
pub struct Answer {
    numbers: BTreeMap<String, f64>,
    texts: BTreeMap<String, String>,
    bytes: BTreeMap<String, Vec<u8>>,
}

impl Answer {
    /// The error's code when the server refused.
    pub fn code(&self) -> Option<i64> {
        #[expect(clippy::cast_possible_truncation, reason = "MongoDB's error codes are small integers")]
        self.numbers.get("code").map(|code| *code as i64)
    }

    pub fn ensure_ok(&self) -> Result<()> {
        if self.number("ok") == Some(1.0) {
            return Ok(());
        }
        bail!("MongoDB answers: {}", self.texts.get("errmsg").map_or("no reason given", String::as_str))
    }

    pub fn number(&self, name: &str) -> Option<f64> {
        self.numbers.get(name).copied()
    }
}

/// A command on the database `admin`, ready to be sent.
pub fn message(command: Vec<(&'static str, Value)>) -> Vec<u8> {
    let mut fields = command;
    fields.push(("$db", "admin".into()));
    let mut body = vec![0; 5];
    body.extend(document(&fields));
    let mut message = length_of(HEADER + body.len()).to_vec();
    for word in [1, 0, OP_MSG] {
        message.extend(i32::to_le_bytes(word));
    }
    message.extend(body);
    message
}

/// Sends a command and reads its answer.
pub fn ask(stream: &mut (impl Read + Write), command: Vec<(&'static str, Value)>) -> Result<Answer> {
    stream.write_all(&message(command)).context("asking MongoDB")?;
    let mut length = [0; 4];
    stream.read_exact(&mut length).context("reading MongoDB's answer")?;
    let size = usize::try_from(i32::from_le_bytes(length)).unwrap_or(0);
    if !(HEADER..LARGEST_ANSWER).contains(&size) {
        bail!("what answers is not MongoDB");
    }
    let mut rest = vec![0; size - length.len()];
    stream.read_exact(&mut rest).context("reading MongoDB's answer")?;
    answer(&[&length[..], &rest].concat())
}

/// Reads a whole answer message.
pub fn answer(message: &[u8]) -> Result<Answer> {
    let body = message.get(HEADER + 5..).context("MongoDB's answer is too short")?;
    fields(body).context("MongoDB's answer cannot be read")
}

/// Proves the password by SCRAM-SHA-256; fails when the server does not accept it.
pub fn authenticate(stream: &mut (impl Read + Write), user: &str, password: &str, nonce: &str) -> Result<()> {
    let first = format!("n={user},r={nonce}");
    let start = vec![
        ("saslStart", Value::Int(1)),
        ("mechanism", "SCRAM-SHA-256".into()),
        ("payload", Value::Bytes(format!("n,,{first}").into_bytes())),
    ];
    let challenge = ask(stream, start)?;
    challenge.ensure_ok()?;
    let server_first = challenge.bytes.get("payload").map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let server_first = server_first.context("MongoDB sent no challenge")?;
    #[expect(clippy::cast_possible_truncation, reason = "the server's own 32-bit number")]
    let conversation = challenge.number("conversationId").unwrap_or(1.0) as i32;
    let finish = vec![
        ("saslContinue", Value::Int(1)),
        ("conversationId", Value::Int(conversation)),
        ("payload", Value::Bytes(proof(password, &first, &server_first)?.into_bytes())),
    ];
    ask(stream, finish)?.ensure_ok()
}

/// The client's last word of RFC 5802, with the proof.
fn proof(password: &str, client_first: &str, server_first: &str) -> Result<String> {
    let part =
        |name: &str| server_first.split(',').find_map(|part| part.strip_prefix(name)).context("unreadable challenge");
    let salt = BASE64.decode(part("s=")?).context("unreadable salt")?;
    let rounds: u32 = part("i=")?.parse().context("unreadable number of rounds")?;
    let without_proof = format!("c=biws,r={}", part("r=")?);
    let salted = stretch(password.as_bytes(), &salt, rounds)?;
    let client_key = mac(&salted, b"Client Key")?;
    let signature =
        mac(&Sha256::digest(client_key), format!("{client_first},{server_first},{without_proof}").as_bytes())?;
    let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, sign)| key ^ sign).collect();
    Ok(format!("{without_proof},p={}", BASE64.encode(proof)))
}

/// PBKDF2 with HMAC-SHA-256, one block.
fn stretch(password: &[u8], salt: &[u8], rounds: u32) -> Result<[u8; 32]> {
    let mut block = mac(password, &[salt, &[0, 0, 0, 1]].concat())?;
    let mut sum = block;
    for _ in 1..rounds {
        block = mac(password, &block)?;
        sum.iter_mut().zip(block).for_each(|(sum, byte)| *sum ^= byte);
    }
    Ok(sum)
}

fn mac(key: &[u8], text: &[u8]) -> Result<[u8; 32]> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).context("preparing an HMAC")?;
    mac.update(text);
    Ok(mac.finalize().into_bytes().into())
}

fn document(fields: &[(&'static str, Value)]) -> Vec<u8> {
    let elements: Vec<u8> = fields.iter().flat_map(|(name, value)| element(name, value)).collect();
    framed(elements)
}

fn framed(elements: Vec<u8>) -> Vec<u8> {
    let mut bytes = length_of(elements.len() + 5).to_vec();
    bytes.extend(elements);
    bytes.push(0);
    bytes
}

fn element(name: &str, value: &Value) -> Vec<u8> {
    let (kind, content) = match value {
        Value::Text(text) => (2, [&length_of(text.len() + 1)[..], text.as_bytes(), &[0]].concat()),
        Value::Document(fields) => (3, document(fields)),
        Value::Array(values) => (
            4,
            framed(values.iter().enumerate().flat_map(|(index, value)| element(&index.to_string(), value)).collect()),
        ),
        Value::Bytes(bytes) => (5, [&length_of(bytes.len())[..], &[0], bytes].concat()),
        Value::Int(number) => (16, number.to_le_bytes().to_vec()),
    };
    [&[kind], name.as_bytes(), &[0], &content].concat()
}

fn length_of(size: usize) -> [u8; 4] {
    // Commands of ours are a few hundred bytes.
    i32::try_from(size).unwrap_or(i32::MAX).to_le_bytes()
}

/// The top-level numbers, texts and bytes of a document; everything else is stepped over.
fn fields(document: &[u8]) -> Option<Answer> {
    let mut answer = Answer::default();
    let mut rest = document.get(4..)?;
    while let Some((&kind, after)) = rest.split_first().filter(|(kind, _)| **kind != 0) {
        let end = after.iter().position(|byte| *byte == 0)?;
        let name = String::from_utf8_lossy(after.get(..end)?).into_owned();
        let value = after.get(end + 1..)?;
        let size = size_of_value(kind, value)?;
        let content = value.get(..size)?;
        match kind {
            1 => drop(answer.numbers.insert(name, f64::from_le_bytes(content.try_into().ok()?))),
            2 => drop(answer.texts.insert(name, String::from_utf8_lossy(content.get(4..size - 1)?).into_owned())),
            5 => drop(answer.bytes.insert(name, content.get(5..)?.to_vec())),
            8 => drop(answer.numbers.insert(name, f64::from(*content.first()?))),
            16 => drop(answer.numbers.insert(name, f64::from(i32::from_le_bytes(content.try_into().ok()?)))),
            _ => {}
        }
        rest = value.get(size..)?;
    }
    Some(answer)
}

fn size_of_value(kind: u8, value: &[u8]) -> Option<usize> {
    let length = || usize::try_from(i32::from_le_bytes(value.get(..4)?.try_into().ok()?)).ok();
    Some(match kind {
        1 | 9 | 17 | 18 => 8,
        2 => length()? + 4,
        3 | 4 => length()?,
        5 => length()? + 5,
        7 => 12,
        8 => 1,
        10 => 0,
        16 => 4,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_back() {
        let sent = message(vec![("ok", Value::Int(1)), ("errmsg", "no".into()), ("payload", Value::Bytes(vec![7, 8]))]);
        let read = answer(&sent).unwrap();
        read.ensure_ok().unwrap();
        assert_eq!(read.texts["errmsg"], "no");
        assert_eq!(read.texts["$db"], "admin");
        assert_eq!(read.bytes["payload"], [7, 8]);
    }

    #[test]
    fn the_proof_is_that_of_rfc_7677() {
        let server_first = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let expected = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(proof("pencil", "n=user,r=rOprNGfwEbeRWgbNEkqO", server_first).unwrap(), expected);
    }
}
