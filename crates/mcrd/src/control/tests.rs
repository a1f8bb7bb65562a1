use axum::body::Body;
use axum::routing::get;
use futures_util::stream::repeat;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::*;

/// A reply without end.
fn endless() -> Router {
    let page = async |Extension(connection): Extension<Stream>| {
        connection.begin();
        Body::from_stream(repeat(Ok::<_, std::convert::Infallible>("more and more\n")))
    };
    Router::new().route("/", get(page))
}

async fn answer(client: UnixStream) {
    let places = Arc::new(Semaphore::new(1));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new());
    converse(client, endless(), (http, places.acquire_owned().await.unwrap())).await;
}

async fn ask(client: &mut UnixStream) {
    client.write_all(b"GET / HTTP/1.1\r\nhost: mcrd\r\n\r\n").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_reads_is_let_go() {
    let (mut client, server) = UnixStream::pair().unwrap();
    ask(&mut client).await;
    let begun = Instant::now();
    answer(server).await;
    assert!(begun.elapsed() >= WRITE_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_slowly_is_not() {
    let (mut client, server) = UnixStream::pair().unwrap();
    ask(&mut client).await;
    let served = tokio::spawn(answer(server));
    let mut some = vec![0; 1 << 18];
    for _ in 0..20 {
        tokio::time::sleep(WRITE_TIMEOUT / 2).await;
        client.read_exact(&mut some).await.unwrap();
    }
    assert!(!served.is_finished());
    drop(client);
    served.await.unwrap();
}
