//! An AWS account of a test's own: moto's server, which speaks AWS's protocol,
//! the playbooks run against it, and questions to it that no playbook asks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::deployment::{ansible_playbook, checkout, free_port};
use super::http::Connection;
use super::play::Play;
use super::{PASSWORD, eventually, process};

/// Longest that the mock may take to listen, on a machine that is very busy.
const START_AT_MOST: Duration = Duration::from_secs(60);

/// Longest that one question to it may take, likewise.
const ANSWER_AT_MOST: Duration = Duration::from_secs(60);

pub const REGION: &str = "eu-central-1";

/// Debian's account, which publishes its images.
const DEBIAN: &str = "136693071363";

/// Asks AWS what stdin says, a list of service, operation and arguments, with
/// the library that Ansible uses too; prints the list of answers.
const ASK: &str = "
import boto3, json, os, sys
region = os.environ.get('AWS_REGION')
def answer(service, operation, arguments):
    try:
        return getattr(boto3.client(service, region_name=region), operation)(**arguments)
    except boto3.exceptions.botocore.exceptions.ClientError as error:
        return {'refused': error.response['Error']['Code']}
json.dump([answer(*question) for question in json.load(sys.stdin)], sys.stdout, default=str)
";

/// The account; the server is gone when this is dropped.
pub struct Aws {
    server: Child,
    port: u16,
    files: TempDir,
    /// What the playbooks are told in the environment beside the server.
    pub environment: Vec<(&'static str, String)>,
}

impl Aws {
    /// Starts the server with the images of [`images`] and a key to log in with.
    pub fn start() -> Aws {
        let files = tempfile::tempdir().expect("a temporary directory");
        let images_file = files.path().join("images.json");
        fs::write(&images_file, images().to_string()).expect("writes");
        let port = free_port();
        let log = fs::File::create(files.path().join("moto.log")).expect("a file");
        let program = beside_ansible("moto_server");
        let server = Command::new(&program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .env("MOTO_AMIS_PATH", images_file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}: run make test", program.display()));
        let environment = vec![
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_ACCESS_KEY_ID", "AKIATEST".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", PASSWORD.to_owned()),
        ];
        let aws = Aws {
            server,
            port,
            files,
            environment,
        };
        aws.make_key("id", "ed25519");
        eventually(START_AT_MOST, "the mock of AWS listens", || {
            let answer = aws.connect()?.try_get("/moto-api/data.json").ok()?;
            (answer.status == 200).then_some(())
        });
        aws
    }

    fn connect(&self) -> Option<Connection> {
        Connection::try_open(([127, 0, 0, 1], self.port).into()).ok()
    }

    /// Returns a file of its own directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Makes a key pair in files `name` and `name.pub`; returns the public one.
    pub fn make_key(&self, name: &str, kind: &str) -> PathBuf {
        let file = self.file(name);
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-t", kind, "-N", "", "-f"]).arg(&file);
        let made = process::run(&mut command, b"", ANSWER_AT_MOST);
        assert!(made.status.success(), "{}", made.stderr);
        self.file(&format!("{name}.pub"))
    }

    /// Has the server ask from now on for keys that it knows and rights that
    /// they have.
    pub fn enforce(&self) {
        let mut connection = self.connect().expect("it listens");
        let request = "POST /moto-api/reset-auth HTTP/1.1\r\nHost: mock\r\nContent-Type: text/plain\r\nContent-Length: 1\r\n\r\n0";
        connection.send(request);
        let answer = connection.answer_to("POST");
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// Says something else in the environment; an empty value takes it away.
    pub fn set(&mut self, name: &'static str, value: &str) {
        self.environment.retain(|(it, _)| *it != name);
        if !value.is_empty() {
            self.environment.push((name, value.to_owned()));
        }
    }

    /// Runs provision.yml as `make provision` does. Nothing is ever sent to the
    /// addresses that the mock gives out: it does not wait for SSH, unless the
    /// arguments say so and where.
    pub fn provision(&self, arguments: &[&str]) -> Play {
        let key = format!(
            "ec2_instance_public_key_file={}",
            self.file("id.pub").display()
        );
        let common = ["-e", &key, "-e", "ec2_instance_ssh_timeout=0"];
        let arguments = [&common, arguments].concat();
        let inventory = "ansible/inventories/aws/localhost.yml";
        self.play("provision.yml", inventory, "localhost", &arguments)
    }

    /// Runs teardown.yml as `make down` does.
    pub fn teardown(&self, arguments: &[&str]) -> Play {
        let inventory = "ansible/inventories/aws";
        self.play("teardown.yml", inventory, "localhost", arguments)
    }

    /// Runs site.yml as `make up` does; `host` is the one that is told.
    pub fn site(&self, host: &str, arguments: &[&str]) -> Play {
        self.play("site.yml", "ansible/inventories/aws", host, arguments)
    }

    fn play(&self, playbook: &str, inventory: &str, host: &str, arguments: &[&str]) -> Play {
        let began = Instant::now();
        let mut command = self.command(Path::new("nice"));
        command
            .arg(ansible_playbook())
            .args(["-i", inventory])
            .arg(format!("ansible/playbooks/{playbook}"))
            .args(arguments)
            .current_dir(checkout())
            .env("ANSIBLE_CONFIG", "ansible/ansible.cfg");
        let play = Play::run(&mut command, host);
        let words = arguments.join(" ");
        eprintln!("{playbook} {words}: {:?}", began.elapsed());
        assert!(!play.tells(PASSWORD), "{playbook} {words} tells a secret");
        play
    }

    /// Asks AWS, with full rights as long as they are not enforced.
    pub fn ask(&self, service: &str, operation: &str, arguments: Value) -> Value {
        let [answer] = self.ask_all([(service, operation, arguments)]);
        answer
    }

    /// Asks AWS several questions in order.
    pub fn ask_all<const N: usize>(&self, questions: [(&str, &str, Value); N]) -> [Value; N] {
        let questions = json!(&questions[..]).to_string();
        let mut command = self.command(&beside_ansible("python"));
        command.args(["-c", ASK]);
        let done = process::run(&mut command, questions.as_bytes(), ANSWER_AT_MOST);
        assert!(done.status.success(), "{}", done.stderr);
        let answers: Vec<Value> = serde_json::from_str(&done.stdout).expect("JSON");
        answers.try_into().expect("as many answers as questions")
    }

    /// A process that talks to this account and knows of no other.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let told = std::env::vars().filter(|(name, _)| name.starts_with("AWS_"));
        told.for_each(|(name, _)| {
            command.env_remove(name);
        });
        command
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env(
                "AWS_ENDPOINT_URL",
                format!("http://127.0.0.1:{}", self.port),
            )
            .env("AWS_CONFIG_FILE", self.file("config"))
            .env("AWS_SHARED_CREDENTIALS_FILE", self.file("credentials"))
            .env("AWS_EC2_METADATA_DISABLED", "true");
        command
    }

    /// Returns all that a playbook could have made or changed, whoever's it is.
    pub fn state(&self) -> Value {
        let nothing = || json!({});
        let mut all = self.ask_all([
            ("ec2", "describe_instances", nothing()),
            ("ec2", "describe_security_groups", nothing()),
            ("ec2", "describe_key_pairs", nothing()),
            ("ec2", "describe_volumes", nothing()),
        ]);
        for answer in &mut all {
            answer
                .as_object_mut()
                .expect("an object")
                .remove("ResponseMetadata");
        }
        json!(all)
    }
}

impl Drop for Aws {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.file("moto.log")).unwrap_or_default();
            let errors = log.lines().filter(|line| !line.contains("\" 200 -"));
            let last: Vec<&str> = errors.collect();
            eprintln!(
                "--- last words of the mock\n{}",
                last[last.len().saturating_sub(20)..].join("\n")
            );
        }
        process::end(&mut self.server);
        if !std::thread::panicking() {
            assert!(self.connect().is_none(), "the mock still listens");
        }
    }
}

/// Returns a program of the virtual environment that runs Ansible.
fn beside_ansible(name: &str) -> PathBuf {
    ansible_playbook().with_file_name(name)
}

/// Debian's images as the mock has them: of each architecture an old and a new
/// one, and others that must not be taken for them.
fn images() -> Value {
    let image = |id: &str, name: &str, architecture: &str, owner: &str, day: &str| {
        json!({
            "ami_id": id, "name": name, "description": name, "owner_id": owner, "public": true,
            "virtualization_type": "hvm", "architecture": architecture, "state": "available",
            "platform": null, "image_type": "machine", "hypervisor": "xen",
            "root_device_name": "/dev/xvda", "root_device_type": "ebs", "sriov": "simple",
            "creation_date": format!("2026-{day}T00:00:00.000Z"),
        })
    };
    json!([
        image(
            "ami-0000000000000amd1",
            "debian-13-amd64-20261001-1",
            "x86_64",
            DEBIAN,
            "10-01"
        ),
        image(
            "ami-0000000000000amd2",
            "debian-13-amd64-20261101-2",
            "x86_64",
            DEBIAN,
            "11-01"
        ),
        image(
            "ami-0000000000000arm1",
            "debian-13-arm64-20261101-2",
            "arm64",
            DEBIAN,
            "11-01"
        ),
        image(
            "ami-0000000backports1",
            "debian-13-backports-amd64-20261102-2",
            "x86_64",
            DEBIAN,
            "11-02"
        ),
        image(
            "ami-00000000000other1",
            "debian-13-amd64-20261103-9",
            "x86_64",
            "999999999999",
            "11-03"
        ),
        image(
            "ami-000000000debian14",
            "debian-14-amd64-20261104-1",
            "x86_64",
            DEBIAN,
            "11-04"
        ),
    ])
}
