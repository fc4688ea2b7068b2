//! The usual way to write a probe: axum, a pool of connections, `SELECT 1` for
//! every request. `DATABASE_URL=… rival ADDRESS` serves /health and /ready.

use std::env;
use std::error::Error;
use std::str::FromStr;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use deadpool_postgres::{Manager, Pool};
use tokio::net::TcpListener;
use tokio_postgres::{Config, NoTls};

/// Enough for two processors and a database beside them; the pool's own
/// default is four connections a processor.
const CONNECTIONS: usize = 16;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = env::args().nth(1).ok_or("rival ADDRESS")?;
    let database = env::var("DATABASE_URL")?;
    let manager = Manager::new(Config::from_str(&database)?, NoTls);
    let pool = Pool::builder(manager).max_size(CONNECTIONS).build()?;
    let routes = Router::new()
        .route("/health", get(async || "{\"ok\":true}\n"))
        .route("/ready", get(ready))
        .with_state(pool);
    let listener = TcpListener::bind(address).await?;
    axum::serve(listener, routes).await?;
    Ok(())
}

async fn ready(State(pool): State<Pool>) -> (StatusCode, &'static str) {
    match ask(&pool).await {
        Ok(()) => (StatusCode::OK, "{\"ok\":true}\n"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "{\"ok\":false}\n"),
    }
}

async fn ask(pool: &Pool) -> Result<(), Box<dyn Error>> {
    let client = pool.get().await?;
    let statement = client.prepare_cached("SELECT 1").await?;
    client.query_one(&statement, &[]).await?;
    Ok(())
}
