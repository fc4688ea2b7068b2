//! The playbooks in an AWS account, which is moto's server: an instance is made
//! as promised, kept so, found and taken away; what is wrong is refused with one
//! line before anything is made.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::aws::{Aws, REGION};
use crate::support::deployment::{self, checkout};
use crate::support::{PASSWORD, process};

const ADMIN: &str = "ec2_instance_admin_cidr=203.0.113.7/32";
const TAG: &str = "org.pgpair.project";
const OWNER: &str = "org.pgpair.owner";

/// Whom the mock takes everybody for who has no user there.
const ME: &str = "arn:aws:sts::123456789012:user/moto";

/// Names that an instance of the deployment `pgpair` is found by.
fn tagged(name: &str) -> Value {
    json!({"Filters": [
        {"Name": format!("tag:{TAG}"), "Values": [name]},
        {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]},
    ]})
}

/// Returns the one instance of a deployment.
fn instance(aws: &Aws, name: &str) -> Value {
    let mut found = aws.ask("ec2", "describe_instances", tagged(name));
    let reservations = found["Reservations"].as_array_mut().expect("a list");
    assert_eq!(reservations.len(), 1, "one instance: {reservations:?}");
    let instances = reservations[0]["Instances"].as_array_mut().expect("a list");
    assert_eq!(instances.len(), 1, "one instance: {instances:?}");
    instances[0].take()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("text: {value}"))
}

/// Returns the value of a tag.
fn tag<'a>(thing: &'a Value, key: &str) -> Option<&'a str> {
    let tags = thing["Tags"].as_array()?;
    let found = tags.iter().find(|tag| tag["Key"] == key)?;
    found["Value"].as_str()
}

/// One instance through all of it, as each step takes a playbook's time.
#[test]
fn instance_is_made_as_promised_kept_so_and_taken_away_without_its_neighbours() {
    let mut aws = Aws::start();
    let neighbours = make_neighbours(&aws);
    check_mode_makes_nothing(&aws);
    first_run_makes_what_was_promised(&aws);
    second_run_changes_nothing(&aws);
    drift_is_repaired_or_told(&aws);
    inventory_finds_it_where_it_is_to_be_reached(&aws);
    silent_ssh_is_told(&aws);
    aws = somebody_else_of_the_same_name_changes_and_loses_nothing(aws);
    two_of_one_name_are_refused_by_every_playbook(&aws);
    what_nobody_owns_is_taken_over_by_its_id_only(&aws);
    teardown_takes_what_is_ours_and_no_more(&aws, &neighbours);
}

/// What others have in the account, alike in all but the tag's value: another
/// deployment, and things without any tag.
fn make_neighbours(aws: &Aws) -> Value {
    let tags = |kind: &str| {
        json!([{"ResourceType": kind, "Tags": [
            {"Key": TAG, "Value": "other"}, {"Key": "Name", "Value": "pgpair"},
        ]}])
    };
    let image = "ami-0000000000000amd1";
    let run = |specifications: Value| {
        json!({"ImageId": image, "MinCount": 1, "MaxCount": 1, "InstanceType": "t2.micro",
               "TagSpecifications": specifications})
    };
    let group = |name: &str, tags: Value| json!({"GroupName": name, "Description": "theirs", "TagSpecifications": tags});
    let volume = json!({"AvailabilityZone": format!("{REGION}a"), "Size": 1, "TagSpecifications": tags("volume")});
    aws.ask_all([
        ("ec2", "run_instances", run(tags("instance"))),
        ("ec2", "run_instances", run(json!([]))),
        (
            "ec2",
            "create_security_group",
            group("other", tags("security-group")),
        ),
        ("ec2", "create_security_group", group("nobody", json!([]))),
        (
            "ec2",
            "create_key_pair",
            json!({"KeyName": "other", "TagSpecifications": tags("key-pair")}),
        ),
        ("ec2", "create_key_pair", json!({"KeyName": "nobody"})),
        ("ec2", "create_volume", volume),
    ]);
    aws.state()
}

fn check_mode_makes_nothing(aws: &Aws) {
    let before = aws.state();
    let play = aws.provision(&["-e", ADMIN, "--check"]);
    assert_eq!(
        play.changed(),
        3,
        "it says what it would make: {}",
        play.stdout
    );
    assert!(
        play.stdout.contains("ami-0000000000000amd2"),
        "{}",
        play.stdout
    );
    assert_eq!(aws.state(), before);
}

fn first_run_makes_what_was_promised(aws: &Aws) {
    let play = aws.provision(&["-e", ADMIN]);
    assert_eq!(play.changed(), 3, "key, group, instance: {}", play.stdout);

    let made = instance(aws, "pgpair");
    assert_eq!(made["InstanceType"], "t2.micro");
    assert_eq!(made["Architecture"], "x86_64");
    assert_eq!(made["ImageId"], "ami-0000000000000amd2", "Debian's newest");
    assert_eq!(made["State"]["Name"], "running");
    assert_eq!(made["KeyName"], "pgpair");
    assert_eq!(made["MetadataOptions"]["HttpTokens"], "required");
    assert_eq!(made["MetadataOptions"]["HttpPutResponseHopLimit"], 1);
    assert_eq!(tag(&made, "Name"), Some("pgpair"));
    let address = text(&made["PublicIpAddress"]);
    assert!(
        play.stdout.contains(&format!("address: {address}")),
        "{}",
        play.stdout
    );

    let disks = made["BlockDeviceMappings"].as_array().expect("a list");
    assert_eq!(disks.len(), 1, "{disks:?}");
    assert_eq!(disks[0]["Ebs"]["DeleteOnTermination"], true);
    let volume = &disks[0]["Ebs"]["VolumeId"];
    let groups = made["SecurityGroups"].as_array().expect("a list");
    assert_eq!(groups.len(), 1, "{groups:?}");
    let group = &groups[0]["GroupId"];
    let [volumes, groups, keys, regions] = aws.ask_all([
        ("ec2", "describe_volumes", json!({"VolumeIds": [volume]})),
        (
            "ec2",
            "describe_security_groups",
            json!({"GroupIds": [group]}),
        ),
        (
            "ec2",
            "describe_key_pairs",
            json!({"KeyNames": ["pgpair"], "IncludePublicKey": true}),
        ),
        (
            "ec2",
            "describe_vpcs",
            json!({"Filters": [{"Name": "is-default", "Values": ["true"]}]}),
        ),
    ]);
    let volume = &volumes["Volumes"][0];
    assert_eq!(volume["VolumeType"], "gp3");
    assert_eq!(volume["Encrypted"], true);
    assert_eq!(volume["Size"], 16);
    let group = &groups["SecurityGroups"][0];
    assert_eq!(
        group["VpcId"], regions["Vpcs"][0]["VpcId"],
        "the default VPC"
    );
    assert_eq!(rules(&group["IpPermissions"]), ["22-22 203.0.113.7/32 SSH"]);
    assert_eq!(
        rules(&group["IpPermissionsEgress"]),
        ["all 0.0.0.0/0", "all ::/0"]
    );
    let key = &keys["KeyPairs"][0];
    let public = fs::read_to_string(aws.file("id.pub")).expect("made above");
    let material = public.split_whitespace().nth(1).expect("a key");
    assert!(text(&key["PublicKey"]).contains(material), "{key}");
    for thing in [&made, volume, group, key] {
        assert_eq!(tag(thing, TAG), Some("pgpair"), "{thing}");
        assert_eq!(tag(thing, OWNER), Some(ME), "{thing}");
    }
}

/// Returns rules as sorted lines: ports, source and description.
fn rules(permissions: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for permission in permissions.as_array().expect("a list") {
        let ports = match permission["IpProtocol"].as_str() {
            Some("-1") => "all".to_owned(),
            _ => format!("{}-{}", permission["FromPort"], permission["ToPort"]),
        };
        for (list, key) in [("IpRanges", "CidrIp"), ("Ipv6Ranges", "CidrIpv6")] {
            for range in permission[list].as_array().into_iter().flatten() {
                let why = range["Description"].as_str().unwrap_or("");
                lines.push(
                    format!("{ports} {} {why}", text(&range[key]))
                        .trim()
                        .to_owned(),
                );
            }
        }
    }
    lines.sort();
    lines
}

fn second_run_changes_nothing(aws: &Aws) {
    let before = aws.state();
    // The longest output, in which no secret may be: every play is searched.
    aws.provision(&["-e", ADMIN, "-vvv", "--diff"])
        .changed_nothing();
    assert_eq!(aws.state(), before);
}

fn drift_is_repaired_or_told(aws: &Aws) {
    let made = instance(aws, "pgpair");
    let (id, group) = (&made["InstanceId"], &made["SecurityGroups"][0]["GroupId"]);
    let world = json!([{"IpProtocol": "tcp", "FromPort": 5432, "ToPort": 5432, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]);
    let retag = json!({"Resources": [id], "Tags": [{"Key": "Name", "Value": "renamed"}, {"Key": "team", "Value": "theirs"}]});
    aws.ask_all([
        (
            "ec2",
            "authorize_security_group_ingress",
            json!({"GroupId": group, "IpPermissions": world}),
        ),
        ("ec2", "create_tags", retag),
        ("ec2", "stop_instances", json!({"InstanceIds": [id]})),
    ]);
    let probe = "ec2_instance_probe_cidrs=198.51.100.0/24,2001:db8::/32";
    let asked = ["-e", ADMIN, "-e", probe, "-e", "ec2_instance_type=t3.micro"];
    let play = aws.provision(&asked);
    assert_eq!(play.changed(), 2, "group, instance: {}", play.stdout);
    for words in ["not repaired:", "its type is t2.micro, not t3.micro"] {
        assert!(play.stdout.contains(words), "{words:?}: {}", play.stdout);
    }

    let now = instance(aws, "pgpair");
    assert_eq!(now["InstanceId"], *id, "the same instance");
    assert_eq!(now["State"]["Name"], "running");
    assert_eq!(tag(&now, "Name"), Some("pgpair"));
    assert_eq!(tag(&now, "team"), Some("theirs"), "others' tags stay");
    let groups = aws.ask(
        "ec2",
        "describe_security_groups",
        json!({"GroupIds": [group]}),
    );
    let expected = [
        "22-22 203.0.113.7/32 SSH",
        "5000-5000 198.51.100.0/24 pgpair",
        "5000-5000 2001:db8::/32 pgpair",
    ];
    assert_eq!(
        rules(&groups["SecurityGroups"][0]["IpPermissions"]),
        expected
    );
    aws.provision(&asked).changed_nothing();
}

/// A port of this machine that nobody has, in place of the mock's addresses.
const ELSEWHERE: [&str; 4] = [
    "-e",
    "ec2_instance_connect_host=127.0.0.1",
    "-e",
    "ec2_instance_connect_port=9",
];

fn inventory_finds_it_where_it_is_to_be_reached(aws: &Aws) {
    let known_hosts = format!(
        "ec2_instance_known_hosts_file={}",
        aws.file("known_hosts").display()
    );
    let arguments = [&ELSEWHERE[..], &["-e", &known_hosts, "-vvv"]].concat();
    let id = text(&instance(aws, "pgpair")["InstanceId"]).to_owned();
    let play = aws.site(&id, &arguments);
    play.refused(&["Failed to connect to the host via ssh", "127.0.0.1 port 9"]);
    for words in [
        "StrictHostKeyChecking=yes",
        &format!("HostKeyAlias={id}"),
        "User=\"admin\"",
    ] {
        assert!(play.tells(words), "{words:?}: {}", play.stdout);
    }
    // The neighbour's is not touched when another name is asked for, nor ours.
    let nobody = aws.site("localhost", &["-e", "ec2_instance_name=nobody"]);
    nobody.refused(&[
        "No Docker host is in the inventory",
        REGION,
        "org.pgpair.project=nobody",
        "make provision",
    ]);
}

/// The mock's consoles show no key.
fn silent_ssh_is_told(aws: &Aws) {
    let arguments = [
        &ELSEWHERE[..],
        &["-e", ADMIN, "-e", "ec2_instance_ssh_timeout=1"],
        &["-e", "ec2_instance_console_timeout=1"],
    ]
    .concat();
    let id = text(&instance(aws, "pgpair")["InstanceId"]).to_owned();
    aws.provision(&arguments).refused(&[
        &format!("console of {id} shows no SSH host key within 1 s"),
        "ec2_instance_host_key=first-visit",
    ]);
    let first = [&arguments[..], &["-e", "ec2_instance_host_key=first-visit"]].concat();
    aws.provision(&first).refused(&[
        &id,
        "admin@127.0.0.1 does not answer within 1 s",
        "ec2_instance_admin_cidr",
    ]);
}

/// As cloud-init prints them, in a console that has been through two boots.
#[test]
fn host_keys_are_read_from_the_console_of_the_newest_boot() {
    let python = deployment::ansible_playbook().with_file_name("python");
    let console = "-----BEGIN SSH HOST KEY KEYS-----\nssh-ed25519 AAAAold root@ip\n-----END SSH HOST KEY KEYS-----\n\
        [   12.3] cloud-init[398]: -----BEGIN SSH HOST KEY KEYS-----\r\n\
        [   12.3] cloud-init[398]: ecdsa-sha2-nistp256 AAAAE2Vj+/= root@ip-10-0-0-1\r\n\
        [   12.3] cloud-init[398]: ssh-ed25519 AAAAC3Nz root@ip-10-0-0-1\r\n\
        -----END SSH HOST KEY KEYS-----\nlogin: ssh-ed25519 AAAAevil\n";
    let script = "import sys; sys.path.insert(0, 'ansible/roles/ec2_instance/library')\n\
        import ec2_instance_host_key as it; print('\\n'.join(it.keys_in(sys.stdin.read())))";
    let mut command = Command::new(python);
    command.args(["-c", script]).current_dir(checkout());
    let read = process::run(&mut command, console.as_bytes(), Duration::from_secs(60));
    let expected = "ecdsa-sha2-nistp256 AAAAE2Vj+/=\nssh-ed25519 AAAAC3Nz\n";
    assert_eq!(
        (read.stdout.as_str(), read.code()),
        (expected, 0),
        "{}",
        read.stderr
    );
}

/// Runs every playbook that changes or removes something; each must refuse with
/// these words, and change nothing.
fn every_playbook_refuses(aws: &Aws, words: &[&str]) {
    let before = aws.state();
    let all = [words, &["Nothing was touched."]].concat();
    aws.provision(&["-e", ADMIN]).refused(&all);
    aws.site("localhost", &[]).refused(&all);
    aws.teardown(&["-e", "confirm=yes"]).refused(&all);
    assert_eq!(aws.state(), before);
}

fn somebody_else_of_the_same_name_changes_and_loses_nothing(mut aws: Aws) -> Aws {
    let [_, key] = aws.ask_all([
        ("iam", "create_user", json!({"UserName": "colleague"})),
        ("iam", "create_access_key", json!({"UserName": "colleague"})),
    ]);
    let id = text(&instance(&aws, "pgpair")["InstanceId"]).to_owned();
    let mine = aws.environment.clone();
    let key = &key["AccessKey"];
    aws.set("AWS_ACCESS_KEY_ID", text(&key["AccessKeyId"]));
    aws.set("AWS_SECRET_ACCESS_KEY", text(&key["SecretAccessKey"]));
    let words = [
        "belongs to",
        ME,
        &id,
        "launched 20",
        "this is arn:aws:iam::123456789012:user/colleague",
        "another ec2_instance_name",
    ];
    every_playbook_refuses(&aws, &words);
    aws.environment = mine;
    aws
}

fn two_of_one_name_are_refused_by_every_playbook(aws: &Aws) {
    let tags = json!([{"ResourceType": "instance", "Tags": [
        {"Key": TAG, "Value": "pgpair"}, {"Key": OWNER, "Value": ME},
    ]}]);
    let second = json!({"ImageId": "ami-0000000000000amd1", "MinCount": 1, "MaxCount": 1,
                        "InstanceType": "t2.micro", "TagSpecifications": tags});
    let second = aws.ask("ec2", "run_instances", second);
    let second = &second["Instances"][0]["InstanceId"];
    every_playbook_refuses(aws, &["2 instances carry the tag", text(second)]);
    aws.ask(
        "ec2",
        "terminate_instances",
        json!({"InstanceIds": [second]}),
    );
}

fn what_nobody_owns_is_taken_over_by_its_id_only(aws: &Aws) {
    let id = text(&instance(aws, "pgpair")["InstanceId"]).to_owned();
    let untag = json!({"Resources": [id], "Tags": [{"Key": OWNER}]});
    aws.ask("ec2", "delete_tags", untag);
    every_playbook_refuses(
        aws,
        &["has no owner", &format!("-e ec2_instance_adopt={id}")],
    );
    let adopt = format!("ec2_instance_adopt={id}");
    let play = aws.provision(&["-e", ADMIN, "-e", &adopt]);
    assert_eq!(play.changed(), 1, "the tag: {}", play.stdout);
    assert_eq!(tag(&instance(aws, "pgpair"), OWNER), Some(ME));
    aws.provision(&["-e", ADMIN]).changed_nothing();
}

/// With its parameter filled in nothing is granted for everybody's things.
#[test]
fn policy_grants_what_is_its_owners_and_new_instances_as_they_are_to_be() {
    let file = checkout().join("ansible/roles/ec2_instance/files/policy.json");
    let policy = fs::read_to_string(file).expect("readable");
    let policy: Value = serde_json::from_str(&policy.replace("OWNER", ME)).expect("JSON");
    let mut conditions = String::new();
    for statement in policy["Statement"].as_array().expect("a list") {
        let condition = statement["Condition"].to_string();
        assert!(!condition.contains('*'), "{statement}");
        let actions = statement["Action"].to_string();
        let changes = [
            "Terminate",
            "Delete",
            "Modify",
            "Stop",
            "Authorize",
            "CreateTags",
        ];
        if changes.iter().any(|word| actions.contains(word)) {
            assert!(condition.contains(ME), "{statement}");
        }
        conditions += &condition;
    }
    for condition in [
        r#""ec2:MetadataHttpTokens":"required""#,
        r#""ec2:Encrypted":"true""#,
        r#""ec2:Owner":"136693071363""#,
    ] {
        assert!(conditions.contains(condition), "{condition}");
    }
}

/// A group of a foreign name that carries the tags, and a colleague's volume.
fn make_strangers(aws: &Aws) {
    let tags = |kind: &str, owner: &str| {
        json!([{"ResourceType": kind, "Tags": [
            {"Key": TAG, "Value": "pgpair"}, {"Key": OWNER, "Value": owner},
        ]}])
    };
    let group = json!({"GroupName": "web", "Description": "theirs", "TagSpecifications": tags("security-group", ME)});
    let volume = json!({"AvailabilityZone": format!("{REGION}a"), "Size": 1,
                        "TagSpecifications": tags("volume", "arn:aws:iam::123456789012:user/colleague")});
    aws.ask_all([
        ("ec2", "create_security_group", group),
        ("ec2", "create_volume", volume),
    ]);
}

fn teardown_takes_what_is_ours_and_no_more(aws: &Aws, neighbours: &Value) {
    make_strangers(aws);
    let before = aws.state();
    aws.teardown(&[]).refused(&[
        "Nothing was deleted",
        "launched 20",
        ME,
        "confirm=yes",
        "security group",
        "key pair pgpair",
    ]);
    aws.teardown(&["-e", "confirm=no"])
        .refused(&["Nothing was deleted"]);
    assert_eq!(aws.state(), before);

    let play = aws.teardown(&["-e", "confirm=yes"]);
    assert_eq!(play.changed(), 3, "instance, group, key: {}", play.stdout);
    let left = aws.state();
    for (index, key, id) in [
        (1, "SecurityGroups", "GroupId"),
        (2, "KeyPairs", "KeyPairId"),
        (3, "Volumes", "VolumeId"),
    ] {
        let ids = |state: &Value| {
            let things = state[index][key].as_array().expect("a list").iter();
            let mut ids: Vec<String> = things.map(|thing| text(&thing[id]).to_owned()).collect();
            ids.sort();
            ids
        };
        let strangers = match key {
            "KeyPairs" => 0,
            _ => 1,
        };
        let (left, neighbours) = (ids(&left), ids(neighbours));
        assert!(neighbours.iter().all(|id| left.contains(id)), "{key}");
        assert_eq!(left.len(), neighbours.len() + strangers, "{key}");
    }
    assert_eq!(instance(aws, "other")["State"]["Name"], "running");
    let running = json!({"Filters": [{"Name": "instance-state-name", "Values": ["running"]}]});
    let running = aws.ask("ec2", "describe_instances", running);
    assert_eq!(
        running["Reservations"].as_array().map(Vec::len),
        Some(2),
        "the neighbours"
    );
    aws.teardown(&["-e", "confirm=yes"]).changed_nothing();
}

/// What the role's policy.json grants is all that it needs: the mock checks
/// actions, though neither the tags nor the resources that they are granted for.
#[test]
fn unknown_keys_are_refused_and_a_run_that_ended_half_way_is_finished() {
    let mut aws = Aws::start();
    let file = checkout().join("ansible/roles/ec2_instance/files/policy.json");
    let text_of_policy = fs::read_to_string(file).expect("readable");
    let whole = policy(&text_of_policy, "");
    let [_, _, key, _] = aws.ask_all([
        ("iam", "create_user", json!({"UserName": "operator"})),
        (
            "iam",
            "put_user_policy",
            granting(&policy(&text_of_policy, "ec2:RunInstances")),
        ),
        ("iam", "create_access_key", json!({"UserName": "operator"})),
        // Who may change what the operator may.
        ("iam", "create_user", json!({"UserName": "root"})),
    ]);
    let everything = json!({"UserName": "root", "PolicyName": "all", "PolicyDocument": json!({
        "Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
    }).to_string()});
    let [_, root] = aws.ask_all([
        ("iam", "put_user_policy", everything),
        ("iam", "create_access_key", json!({"UserName": "root"})),
    ]);
    aws.enforce();

    aws.provision(&["-e", ADMIN]).refused(&[
        "AWS does not know this access key",
        "AWS_PROFILE",
        "Nothing was touched",
    ]);
    aws.teardown(&["-e", "confirm=yes"])
        .refused(&["AWS does not know this access key"]);

    aws.set("AWS_ACCESS_KEY_ID", text(&key["AccessKey"]["AccessKeyId"]));
    let provision = aws.provision(&["-e", ADMIN]);
    provision.refused(&["The secret access key does not belong to this access key"]);

    let secret = text(&key["AccessKey"]["SecretAccessKey"]).to_owned();
    aws.set("AWS_SECRET_ACCESS_KEY", &secret);
    let half = aws.provision(&["-e", ADMIN]);
    half.refused(&["RunInstances"]);
    assert!(!half.tells(&secret), "it tells a secret");

    let operator = aws.environment.clone();
    aws.set("AWS_ACCESS_KEY_ID", text(&root["AccessKey"]["AccessKeyId"]));
    aws.set(
        "AWS_SECRET_ACCESS_KEY",
        text(&root["AccessKey"]["SecretAccessKey"]),
    );
    let [keys, _] = aws.ask_all([
        ("ec2", "describe_key_pairs", json!({})),
        ("iam", "put_user_policy", granting(&whole)),
    ]);
    assert_eq!(
        keys["KeyPairs"][0]["KeyName"], "pgpair",
        "the half that was done"
    );
    let root = std::mem::replace(&mut aws.environment, operator);

    let play = aws.provision(&["-e", ADMIN]);
    assert_eq!(play.changed(), 1, "the instance: {}", play.stdout);
    aws.provision(&["-e", ADMIN]).changed_nothing();
    let gone = aws.teardown(&["-e", "confirm=yes"]);
    assert_eq!(gone.changed(), 3, "{}", gone.stdout);
    aws.environment = root;
    let keys = aws.ask("ec2", "describe_key_pairs", json!({}));
    assert_eq!(keys["KeyPairs"], json!([]));
}

/// Returns the policy for the mock, which denies what has a condition, without
/// one action.
fn policy(text: &str, without: &str) -> String {
    let mut policy: Value = serde_json::from_str(text).expect("JSON");
    for statement in policy["Statement"].as_array_mut().expect("a list") {
        let statement = statement.as_object_mut().expect("an object");
        statement.remove("Condition");
        statement.insert("Resource".into(), "*".into());
        let actions = match statement["Action"].take() {
            Value::Array(actions) => actions,
            action => vec![action],
        };
        let kept = actions.into_iter().filter(|action| action != without);
        statement.insert("Action".into(), kept.collect());
    }
    let statements = policy["Statement"].as_array_mut().expect("a list");
    statements.retain(|statement| statement["Action"] != json!([]));
    policy.to_string()
}

fn granting(policy: &str) -> Value {
    json!({"UserName": "operator", "PolicyName": "pgpair", "PolicyDocument": policy})
}

#[test]
fn what_is_wrong_is_refused_in_one_line_before_anything_is_made() {
    let mut aws = Aws::start();
    let theirs = json!({"GroupName": "taken", "Description": "theirs"});
    aws.ask_all([
        ("ec2", "create_security_group", theirs),
        ("ec2", "create_key_pair", json!({"KeyName": "key-taken"})),
    ]);
    let before = aws.state();
    who_may_come_is_said_and_not_everybody(&aws);
    keys_that_cannot_be_used_are_refused(&aws);
    types_and_images_must_fit(&aws);
    what_belongs_to_others_is_left_alone(&aws);
    region_without_a_default_vpc_is_refused(&mut aws);
    assert_eq!(aws.state(), before);
    missing_credentials_and_regions_are_told(&mut aws);
}

/// Runs provision.yml, which must refuse with these words.
fn refused(aws: &Aws, variables: &[&str], words: &[&str]) {
    let arguments: Vec<&str> = variables.iter().flat_map(|it| ["-e", *it]).collect();
    let words = [&["Nothing was touched."], words].concat();
    aws.provision(&arguments).refused(&words);
}

fn who_may_come_is_said_and_not_everybody(aws: &Aws) {
    refused(aws, &[], &["ec2_instance_admin_cidr", "has no default"]);
    for everybody in ["0.0.0.0/0", "0.0.0.0/1,128.0.0.0/1", "::/0"] {
        let variable = format!("ec2_instance_admin_cidr={everybody}");
        refused(
            aws,
            &[&variable],
            &["the whole Internet", "ec2_instance_admin_anywhere=true"],
        );
    }
    refused(
        aws,
        &["ec2_instance_admin_cidr=203.0.113.7/24"],
        &["203.0.113.0/24 meant"],
    );
    refused(
        aws,
        &[ADMIN, "ec2_instance_probe_cidrs=there"],
        &["ec2_instance_probe_cidrs", "'there'"],
    );
    let told_twice = [
        "-e",
        "ec2_instance_admin_cidr=0.0.0.0/0",
        "-e",
        "ec2_instance_admin_anywhere=true",
        "--check",
    ];
    assert_eq!(aws.provision(&told_twice).changed(), 3);
}

fn keys_that_cannot_be_used_are_refused(aws: &Aws) {
    refused(
        aws,
        &[ADMIN, "ec2_instance_public_key_file=/nonexistent"],
        &["/nonexistent cannot be read", "ssh-keygen -t ed25519"],
    );
    let private = format!("ec2_instance_public_key_file={}", aws.file("id").display());
    refused(
        aws,
        &[ADMIN, &private],
        &["is not a public key that EC2 takes"],
    );
    let ecdsa = format!(
        "ec2_instance_public_key_file={}",
        aws.make_key("ecdsa", "ecdsa").display()
    );
    refused(
        aws,
        &[ADMIN, &ecdsa],
        &["is not a public key that EC2 takes"],
    );
    refused(
        aws,
        &[ADMIN, "ec2_instance_key_name=nobody"],
        &["no key pair nobody", REGION],
    );
    let open = aws.file("id");
    fs::set_permissions(&open, Permissions::from_mode(0o644)).expect("our own");
    refused(aws, &[ADMIN], &["mode 0644", "chmod 600"]);
    fs::set_permissions(&open, Permissions::from_mode(0o600)).expect("our own");
}

fn types_and_images_must_fit(aws: &Aws) {
    refused(
        aws,
        &[ADMIN, "ec2_instance_type=t9.micro"],
        &["no instance type t9.micro", REGION],
    );
    refused(
        aws,
        &[ADMIN, "ec2_instance_architecture=arm64"],
        &["t2.micro is x86_64, not arm64"],
    );
    let arm = [
        "ec2_instance_type=t4g.micro",
        "ec2_instance_image_id=ami-0000000000000amd2",
    ];
    refused(
        aws,
        &[ADMIN, arm[0], arm[1]],
        &["ami-0000000000000amd2 is x86_64", "t4g.micro is arm64"],
    );
    refused(
        aws,
        &[ADMIN, "ec2_instance_image_id=ami-0123456789abcdef0"],
        &["no image ami-0123456789abcdef0"],
    );
    refused(
        aws,
        &[ADMIN, "ec2_instance_image_name=debian-99-*"],
        &["publishes no image debian-99-*"],
    );
    // The architecture follows the type.
    let play = aws.provision(&["-e", ADMIN, "-e", arm[0], "--check"]);
    assert!(
        play.stdout.contains("t4g.micro from ami-0000000000000arm1"),
        "{}",
        play.stdout
    );
}

fn what_belongs_to_others_is_left_alone(aws: &Aws) {
    refused(
        aws,
        &[ADMIN, "ec2_instance_name=taken"],
        &["security group taken", "is not this deployment's"],
    );
    refused(
        aws,
        &[ADMIN, "ec2_instance_name=key-taken"],
        &["key pair key-taken exists", "ec2_instance_key_name"],
    );
    refused(
        aws,
        &[ADMIN, "ec2_instance_subnet_id=subnet-0123456789abcdef0"],
        &["no subnet subnet-0123456789abcdef0"],
    );
}

fn region_without_a_default_vpc_is_refused(aws: &mut Aws) {
    aws.set("AWS_REGION", "eu-west-1");
    let found = aws.ask("ec2", "describe_subnets", json!({}));
    for subnet in found["Subnets"].as_array().expect("a list") {
        aws.ask(
            "ec2",
            "delete_subnet",
            json!({"SubnetId": subnet["SubnetId"]}),
        );
    }
    let vpcs = aws.ask("ec2", "describe_vpcs", json!({}));
    aws.ask(
        "ec2",
        "delete_vpc",
        json!({"VpcId": vpcs["Vpcs"][0]["VpcId"]}),
    );
    refused(
        aws,
        &[ADMIN],
        &[
            "no default VPC in eu-west-1",
            "aws ec2 create-default-vpc",
            "ec2_instance_vpc_id",
        ],
    );
    aws.set("AWS_REGION", REGION);
}

fn missing_credentials_and_regions_are_told(aws: &mut Aws) {
    aws.set("AWS_REGION", "eu-nowhere-1");
    refused(aws, &[ADMIN], &["eu-nowhere-1"]);
    aws.set("AWS_REGION", "");
    refused(aws, &[ADMIN], &["No AWS region", "AWS_REGION"]);
    aws.set("AWS_REGION", REGION);
    aws.set("AWS_ACCESS_KEY_ID", "");
    aws.set("AWS_SECRET_ACCESS_KEY", "");
    let words = [
        "Unable to locate credentials",
        "AWS_ACCESS_KEY_ID",
        "aws sso login",
    ];
    refused(aws, &[ADMIN], &words);
    aws.site("localhost", &[]).refused(&words);
    aws.teardown(&["-e", "confirm=yes"]).refused(&words);
    aws.set("AWS_PROFILE", "nobody");
    aws.provision(&["-e", ADMIN]).refused(&["nobody"]);
    // A profile with its own region, as aws configure writes it.
    let keys =
        format!("[nobody]\naws_access_key_id = AKIATEST\naws_secret_access_key = {PASSWORD}\n");
    fs::write(aws.file("credentials"), keys).expect("writes");
    fs::write(
        aws.file("config"),
        format!("[profile nobody]\nregion = {REGION}\n"),
    )
    .expect("writes");
    aws.set("AWS_REGION", "");
    assert_eq!(aws.provision(&["-e", ADMIN, "--check"]).changed(), 3);
    aws.site("localhost", &[])
        .refused(&["no instance in eu-central-1"]);
}
