//! A storm of watches: what the API server holds for clients that do not read what they asked for.

use http_body_util::BodyExt;
use podlog_serving::{NodeBody, NodeClient, Verify};

use crate::{
    Options, api,
    report::{Row, Target},
    site::{ServerProcess, Site},
    usage,
};

/// Watches over one connection.
const STREAMS: usize = 100;
/// Bytes that a client takes of a watch without reading it.
const WINDOW: u32 = 16 << 10;
/// Bytes that are read of a watch once for all.
const A_LITTLE: usize = 64 << 10;
/// Looks at the server's memory while pods change.
const LOOKS: usize = 20;

pub(crate) fn measure(options: &Options) -> anyhow::Result<Vec<Row>> {
    tokio::runtime::Runtime::new()?.block_on(storm(options))
}

/// Half of the watches begin with all pods, half with the next change. All pods change, every watch reads a little, and all pods
/// change again: then each is somewhere else.
async fn storm(options: &Options) -> anyhow::Result<Vec<Row>> {
    let directory = options.directory()?;
    let site = Site::new(directory.path())?;
    let (pods, count) = (options.size(10_000, 200), options.size(1_000, 20));
    api::fill(&site, pods).await?;
    let mut server = ServerProcess::start(&site)?;
    api::settle(&server).await?;
    let before = usage::memory(server.pid())?.resident;
    let mut watches = Vec::new();
    let mut client = site.client_that_takes(WINDOW)?;
    for number in 0..count {
        if number % STREAMS == 0 {
            client = site.client_that_takes(WINDOW)?;
        }
        let from =
            if number % 2 == 0 { "" } else { "&sendInitialEvents=false&resourceVersionMatch=NotOlderThan" };
        watches.push(watch(&client, server.address.port(), from).await?);
    }
    let each = |most: f64| (most - before) / count as f64;
    let unread = change(&mut server, pods)?;
    for watch in &mut watches {
        read_a_little(watch).await?;
    }
    let apart = change(&mut server, pods)?;
    let row = |how: &str, most: f64| {
        let what = format!("{count} watches {how}, {pods} pods changing: memory of each");
        Row::new("watches", what, each(most), "KiB").target(Target::AtMost(64.0))
    };
    Ok(vec![row("that nobody reads", unread), row("of which each read a little", apart)])
}

async fn watch(client: &NodeClient, port: u16, from: &str) -> anyhow::Result<NodeBody> {
    let path = format!("/api/v1/pods?watch=true{from}");
    let answer = client.get("127.0.0.1", port, &path, Verify::Ca).await?;
    anyhow::ensure!(answer.status() == 200, "{path}: {}", answer.status());
    Ok(answer.into_body())
}

/// Not to its end: a watch that fell behind for too long is told so, and ends.
async fn read_a_little(watch: &mut NodeBody) -> anyhow::Result<()> {
    let mut read = 0;
    while read < A_LITTLE
        && let Some(frame) = watch.frame().await
    {
        read += frame.map_err(anyhow::Error::from_boxed)?.data_ref().map_or(0, bytes::Bytes::len);
    }
    Ok(())
}

/// Changes all pods; the most memory that was resident meanwhile, in KiB.
fn change(server: &mut ServerProcess, pods: usize) -> anyhow::Result<f64> {
    let mut most: f64 = 0.0;
    for part in 0..LOOKS {
        server.change(part * pods / LOOKS..(part + 1) * pods / LOOKS)?;
        most = most.max(usage::memory(server.pid())?.resident);
    }
    Ok(most)
}
