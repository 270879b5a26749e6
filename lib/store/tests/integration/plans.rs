//! Every query of the store is answered by an index. The server records what a run of all calls asks of it, and is then
//! asked how it would answer each: no scan of a collection, and no sort in memory beyond a page.
//! A new query belongs into `calls`; a test says so of one that is not there.

use std::{fs, path::Path};

use mongodb::{
    Client, Database,
    bson::{Bson, Document, doc},
};
use secrecy::ExposeSecret;
use shop_harness::with_shop;

use self::calls::{PAGE, every_call};

mod calls;

/// What asks MongoDB nothing that an index could answer.
const EXEMPT: [(&str, &str); 13] = [
    ("audit", "reads whole collections, for the one who examines the shop"),
    ("bulk", "how the others write"),
    ("client", "pings, and what is done once at a start"),
    ("gate", "pings"),
    ("migrate", "makes the indexes"),
    ("stock/naive", "oversells on purpose, and is in no build for a shop"),
    ("transaction", "begins and ends what the others ask"),
    ("catalogue_cache", "Redis"),
    ("order_cache", "Redis"),
    ("order_events", "Redis"),
    ("redis_link", "Redis"),
    ("session_cache", "Redis"),
    ("shared_limits", "Redis"),
];

#[tokio::test]
async fn every_query_is_on_an_index() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let database = Client::with_uri_str(shop.servers.mongodb_uri.expose_secret()).await?.database(&shop.name);
        let product = shop.stocked(50).await?;
        database.run_command(doc! { "profile": 2 }).await?;
        every_call(&shop, &product).await?;
        database.run_command(doc! { "profile": 0 }).await?;

        let queries = recorded(&database).await?;
        assert!(queries.len() > 100, "only {} queries were recorded", queries.len());
        let mut faults = Vec::new();
        for query in queries {
            let explained = database.run_command(doc! { "explain": &query, "verbosity": "queryPlanner" }).await?;
            let mut found = Vec::new();
            inspect(&Bson::from(explained), &mut found);
            faults.extend(found.into_iter().map(|fault| format!("{fault}: {query}")));
        }
        assert!(faults.is_empty(), "{}", faults.join("\n"));
        Ok(())
    })
    .await
}

/// What was asked, each question once, as commands that can be explained.
async fn recorded(database: &Database) -> anyhow::Result<Vec<Document>> {
    let mut queries = Vec::<Document>::new();
    let mut profile = database.collection::<Document>("system.profile").find(doc! {}).await?;
    while profile.advance().await? {
        let entry = profile.deserialize_current()?;
        let collection = entry.get_str("ns")?.split_once('.').map_or("", |(_, name)| name);
        if let (false, Some(query)) =
            (collection.starts_with("system."), query(collection, entry.get_document("command")?))
            && !queries.contains(&query)
        {
            queries.push(query);
        }
    }
    Ok(queries)
}

/// How documents are looked up by a command; None when it looks nothing up.
fn query(collection: &str, command: &Document) -> Option<Document> {
    if command.contains_key("find") {
        return Some(only(command, &["find", "filter", "sort", "limit", "projection"]));
    }
    if command.contains_key("aggregate") {
        return Some(only(command, &["aggregate", "pipeline", "cursor"]));
    }
    let filter = command.get("q").or_else(|| command.get("query"))?;
    Some(doc! { "find": collection, "filter": filter })
}

fn only(command: &Document, names: &[&str]) -> Document {
    let kept = command.iter().filter(|(name, _)| names.contains(&name.as_str()));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Collects what is wrong with a plan and everything in it, except for plans that lost.
fn inspect(plan: &Bson, faults: &mut Vec<String>) {
    match plan {
        Bson::Document(document) => {
            match document.get_str("stage") {
                Ok("COLLSCAN") => faults.push("scans the collection".into()),
                Ok("SORT") if !(1..=PAGE).contains(&number(document.get("limitAmount"))) => {
                    faults.push("sorts more than a page in memory".into());
                }
                _ => {}
            }
            let winners = document.iter().filter(|(name, _)| !matches!(name.as_str(), "rejectedPlans" | "command"));
            winners.for_each(|(_, inner)| inspect(inner, faults));
        }
        Bson::Array(inner) => inner.iter().for_each(|inner| inspect(inner, faults)),
        _ => {}
    }
}

fn number(value: Option<&Bson>) -> i64 {
    value.and_then(|value| value.as_i64().or_else(|| value.as_i32().map(i64::from))).unwrap_or(0)
}

/// Each query stands in `calls` as `field.name(`, whatever stands in front of the field.
#[test]
fn every_query_is_among_the_calls() -> anyhow::Result<()> {
    let calls: String = include_str!("plans/calls.rs").split_whitespace().collect();
    let mut queries = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut queries)?;
    for (module, why) in EXEMPT {
        assert!(queries.iter().any(|(of, _)| of == module), "{module} ({why}) has no queries any more");
    }
    queries.retain(|(module, _)| !EXEMPT.iter().any(|(exempt, _)| exempt == module));
    assert!(queries.len() > 80, "only {} queries were found", queries.len());
    let is_called = |(module, name): &(String, String)| calls.contains(&format!("{}.{name}(", field(module)));
    let forgotten: Vec<_> = queries.into_iter().filter(|query| !is_called(query)).collect();
    assert!(forgotten.is_empty(), "call them in plans/calls.rs: {forgotten:?}");
    Ok(())
}

/// The field of the store that holds a module's queries.
fn field(module: &str) -> &str {
    if module == "movements" { "ledger" } else { module }
}

/// The public async functions of a folder, each with its module.
fn collect(folder: &Path, prefix: &str, queries: &mut Vec<(String, String)>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let module = format!("{prefix}{}", path.file_stem().unwrap_or_default().to_string_lossy());
        if path.is_dir() {
            collect(&path, &format!("{module}/"), queries)?;
            continue;
        }
        for rest in fs::read_to_string(&path)?.split("pub async fn ").skip(1) {
            let name: String = rest.chars().take_while(|&c| c.is_alphanumeric() || c == '_').collect();
            queries.push((module.clone(), name));
        }
    }
    Ok(())
}
