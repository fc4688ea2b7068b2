//! What a pair is called and where it lies on the host: the same names and
//! paths as the Ansible roles use.

use std::fmt;
use std::path::{Path, PathBuf};

/// One of the pair's two nodes. Neutral names, as the roles move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// The node `a`.
    A,
    /// The node `b`.
    B,
}

impl Node {
    /// Both nodes.
    pub const BOTH: [Node; 2] = [Node::A, Node::B];

    /// Returns the node's name.
    pub fn name(self) -> &'static str {
        match self {
            Node::A => "a",
            Node::B => "b",
        }
    }

    /// Returns the node's place in a list of both.
    pub fn index(self) -> usize {
        match self {
            Node::A => 0,
            Node::B => 1,
        }
    }

    /// Returns the other node of the pair.
    pub fn other(self) -> Node {
        match self {
            Node::A => Node::B,
            Node::B => Node::A,
        }
    }

    /// Finds a node by its name.
    pub fn named(name: &str) -> Option<Node> {
        Node::BOTH.into_iter().find(|node| node.name() == name)
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A pair's name and folder; everything else follows from them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// What the names of containers, network and slots begin with.
    pub prefix: String,
    /// The folder of all that the pair has on the host.
    pub root: PathBuf,
}

/// The folder of PostgreSQL's data, below a node's own.
pub const PGDATA: &str = "pgdata";

/// PostgreSQL's data inside the containers is one level below this.
pub const MOUNT: &str = "/var/lib/postgresql/data";

/// The configuration inside the containers.
pub const CONF: &str = "/etc/postgresql";

/// What marks containers as a pair's; the value is its prefix.
pub const LABEL: &str = "org.pgpair.project";

impl Layout {
    /// Makes the layout of a pair; `root` defaults to `/srv/<prefix>`.
    ///
    /// # Errors
    ///
    /// Says what would do.
    pub fn new(prefix: &str, root: Option<&str>) -> Result<Layout, String> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let fits = (1..=40).contains(&prefix.len())
            && prefix.starts_with(plain)
            && prefix.chars().all(|c| plain(c) || "_.-".contains(c));
        if !fits {
            return Err("use up to 40 of a-z 0-9 _ . -, a letter or digit first".to_owned());
        }
        let root = root.map_or_else(|| format!("/srv/{prefix}"), str::to_owned);
        // A Unix socket's path holds 107 bytes; docker takes no comma or colon in a mount.
        let fits = root.starts_with('/') && (2..=81).contains(&root.len());
        if !fits || root.contains([',', ':', '\n']) {
            return Err(format!(
                "the root {root:?} must be an absolute path of up to 80 characters, without comma or colon"
            ));
        }
        Ok(Layout {
            prefix: prefix.to_owned(),
            root: PathBuf::from(root),
        })
    }

    /// Returns the name of a node's container, which is its host name too.
    pub fn container(&self, node: Node) -> String {
        format!("{}-{node}", self.prefix)
    }

    /// Returns the name of a node's slot on the other; it is also the name under
    /// which the node streams.
    pub fn slot(&self, node: Node) -> String {
        let plain = |c: char| match c {
            'a'..='z' | '0'..='9' | '_' => c,
            _ => '_',
        };
        let prefix: String = self.prefix.chars().map(plain).collect();
        format!("{prefix}_{node}")
    }

    /// Returns a node's folder above its data.
    pub fn data(&self, node: Node) -> PathBuf {
        self.root.join(node.name()).join("data")
    }

    /// Returns a node's PGDATA.
    pub fn pgdata(&self, node: Node) -> PathBuf {
        self.data(node).join(PGDATA)
    }

    /// Returns the folder of a node's Unix socket.
    pub fn run(&self, node: Node) -> PathBuf {
        self.root.join(node.name()).join("run")
    }

    /// Returns the folder of a node's configuration.
    pub fn conf(&self, node: Node) -> PathBuf {
        self.root.join(node.name()).join("conf")
    }

    /// Returns the file that marks the root as a pair's, and names it.
    pub fn marker(&self) -> PathBuf {
        self.root.join(".pgpair")
    }

    /// Returns a file of the commands' own in the root.
    pub fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Returns the root.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_from_the_prefix() {
        let layout = Layout::new("my-pair.2", None).expect("a fine name");
        assert_eq!(layout.container(Node::A), "my-pair.2-a");
        assert_eq!(layout.slot(Node::B), "my_pair_2_b");
        assert_eq!(
            layout.pgdata(Node::B),
            Path::new("/srv/my-pair.2/b/data/pgdata")
        );
    }

    #[test]
    fn odd_names_are_refused() {
        let long = "x".repeat(41);
        for prefix in ["", "-a", "A", "a b", "a/b", "ä", long.as_str()] {
            assert!(Layout::new(prefix, None).is_err(), "{prefix:?}");
        }
        let long = format!("/{}", "x".repeat(81));
        for root in ["", "/", "srv", "/a,b", "/a:b", long.as_str()] {
            assert!(Layout::new("p", Some(root)).is_err(), "{root:?}");
        }
    }
}
