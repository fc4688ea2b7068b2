#!/usr/bin/python
"""Reads all that must be known of an AWS account before the role ec2_instance changes anything in it; changes nothing itself."""

import base64
import ipaddress
import os
import stat

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule

try:
    from botocore import exceptions as boto
    from botocore.parsers import ResponseParserError
except ImportError:
    pass  # AnsibleAWSModule says so.

DOCUMENTATION = """
module: ec2_instance_survey
short_description: reads an AWS account for the role ec2_instance
description:
  - Finds what carries the deployment's tag and, where O(wanted) is given, what is needed to create the rest.
  - Fails with one sentence when something is missing or wrong. It changes nothing.
options:
  name:
    description: Name of the deployment; the tag's value, and the name of its key pair and security group.
    type: str
    required: true
  tag:
    description: Key of the tag.
    type: str
    required: true
  owner:
    description: Who this deployment belongs to; empty, the caller's ARN.
    type: str
    default: ''
  owner_tag:
    description: Key of the tag that names the owner.
    type: str
    required: true
  adopt:
    description: Ids of things without an owner that are the caller's.
    type: list
    elements: str
    default: []
  wanted:
    description: What is to be there; without it, only what carries the tag is read.
    type: dict
    suboptions:
      admin_cidrs: {description: Who may reach SSH., type: list, elements: str, default: []}
      admin_anywhere: {description: Whether that may be everybody., type: bool, default: false}
      probe_cidrs: {description: Who may reach the probe., type: list, elements: str, default: []}
      probe_port: {description: The probe's port., type: int, default: 5000}
      key_name: {description: A key pair that is there., type: str, default: ''}
      public_key_file: {description: Else the public key to import., type: path, default: ''}
      private_key_file: {description: The private key that belongs to it., type: path, default: ''}
      instance_type: {description: The instance's type., type: str, default: ''}
      architecture: {description: x86_64 or arm64; else the type's., type: str, default: ''}
      image_id: {description: The image., type: str, default: ''}
      image_owner: {description: Else the account that publishes it., type: str, default: ''}
      image_name: {description: 'And its name, with wildcards and {arch}.', type: str, default: ''}
      volume_size: {description: GiB of the root volume., type: int, default: 0}
      vpc_id: {description: The VPC., type: str, default: ''}
      subnet_id: {description: The subnet., type: str, default: ''}
"""

# Wider than these together is as good as everybody.
WIDEST = {4: 8, 6: 16}

# What EC2 takes for key pairs.
KEY_TYPES = ("ssh-ed25519", "ssh-rsa")

# How Debian names what AWS calls an architecture.
DEBIAN_ARCHITECTURES = {"x86_64": "amd64", "arm64": "arm64"}

# States of an instance that is not on its way out.
ALIVE = ["pending", "running", "stopping", "stopped"]

# And of one that still holds on to its security group.
LEAVING = ["shutting-down"]

NOTHING_TOUCHED = " Nothing was touched."

CREDENTIALS = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or sign in with aws sso login."

# What AWS answers to whom it does not know, and what that means.
DENIED = {
    "AuthFailure": "AWS does not accept these credentials, or the account has not opted in to this region",
    "ExpiredToken": "these AWS credentials have expired: sign in again",
    "ExpiredTokenException": "these AWS credentials have expired: sign in again",
    "InvalidAccessKeyId": "AWS does not know this access key",
    "InvalidClientTokenId": "AWS does not know this access key",
    "RequestExpired": "AWS finds this request too old: is this machine's clock right?",
    "SignatureDoesNotMatch": "the secret access key does not belong to this access key",
    "UnrecognizedClientException": "AWS does not know this access key",
}


class Refusal(Exception):
    """One sentence that says why not."""


def networks(texts, option):
    """Returns what was given as CIDR blocks, as AWS writes them."""
    return [network(text.strip(), option) for text in texts if text.strip()]


def network(text, option):
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise Refusal(f"{option} has {text!r}, which is not a CIDR block such as 203.0.113.7/32.") from None
    raise Refusal(f"{option} has {text!r}, which has bits set behind its prefix: is {meant} meant?")


def too_wide(blocks):
    """Says whether these blocks together are wider than anybody's own network."""
    for version, prefix in WIDEST.items():
        of_version = [block for block in blocks if block.version == version]
        count = sum(block.num_addresses for block in ipaddress.collapse_addresses(of_version))
        if count > 2 ** (32 if version == 4 else 128) // 2**prefix:
            return True
    return False


def ingress(wanted):
    """Returns the security group's rules for what comes in."""
    admin = networks(wanted["admin_cidrs"], "ec2_instance_admin_cidr")
    if not admin:
        raise Refusal("ec2_instance_admin_cidr says who may reach SSH, and has no default: give your own address, such as 203.0.113.7/32.")
    if too_wide(admin) and not wanted["admin_anywhere"]:
        raise Refusal(
            f"ec2_instance_admin_cidr ({', '.join(map(str, admin))}) lets the whole Internet, or as good as that, try SSH:"
            " narrow it, or say it twice with -e ec2_instance_admin_anywhere=true."
        )
    probe = networks(wanted["probe_cidrs"], "ec2_instance_probe_cidrs")
    return [rule(block, 22, "SSH") for block in admin] + [rule(block, wanted["probe_port"], "pgpair") for block in probe]


def rule(block, port, description):
    source = "cidr_ip" if block.version == 4 else "cidr_ipv6"
    return {"proto": "tcp", "from_port": port, "to_port": port, source: str(block), "rule_desc": description}


def read_public_key(path):
    """Returns the public key of a file, as the two words that matter."""
    try:
        with open(path, encoding="utf-8") as file:
            words = file.read(16384).split()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise Refusal(
            f"The public key {path} cannot be read ({why}): make a key with ssh-keygen -t ed25519, or give ec2_instance_public_key_file"
            " or ec2_instance_key_name."
        ) from None
    if len(words) < 2 or words[0] not in KEY_TYPES or not is_base64(words[1]):
        raise Refusal(f"{path} is not a public key that EC2 takes (one line that begins with {' or '.join(KEY_TYPES)}).")
    return " ".join(words[:2])


def is_base64(text):
    try:
        return bool(base64.b64decode(text, validate=True))
    except ValueError:
        return False


def check_private_key(path, given):
    """Refuses a private key that ssh would refuse; one that was not given may be in an agent."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if given:
            raise Refusal(f"The private key {path} cannot be read ({error.strerror}): give another ec2_instance_private_key_file.") from None
        return
    if stat.S_IMODE(mode) & 0o077:
        raise Refusal(f"Others can read the private key {path} (mode {stat.S_IMODE(mode):04o}), and ssh would not use it: chmod 600 {path}.")


class Account:
    """An AWS account in one region, as far as this deployment is concerned."""

    def __init__(self, module):
        self.name = module.params["name"]
        self.tag = module.params["tag"]
        self.owner_tag = module.params["owner_tag"]
        self.adopt = {text.strip() for text in module.params["adopt"]}
        self.wanted = module.params["wanted"]
        self.region = module.region
        if not self.region:
            raise Refusal("No AWS region: set AWS_REGION (to eu-central-1, for example), or give the profile one with aws configure.")
        self.caller = module.client("sts").get_caller_identity()
        self.owner = module.params["owner"] or self.caller["Arn"]
        self.ec2 = module.client("ec2")

    def all(self, operation, key, **arguments):
        """Returns every page of what is asked for."""
        pages = self.ec2.get_paginator(operation).paginate(**arguments)
        return [item for page in pages for item in page[key]]

    def carries_tag(self, thing):
        """Says whether a thing is this deployment's and its owner's."""
        return {"Key": self.tag, "Value": self.name} in thing.get("Tags", []) and self.is_owners(thing)

    def owner_of(self, thing):
        return owner_of(thing, self.owner_tag)

    def is_owners(self, thing):
        return self.owner_of(thing) == self.owner or (not self.owner_of(thing) and id_of(thing) in self.adopt)

    def ours(self):
        """Returns what carries the tag and belongs to the owner; of groups and keys only those of the deployment's own name."""
        found = self.tagged()
        self.check_owners(found)
        named = {"groups": "GroupName", "keys": "KeyName"}
        ours = {kind: [thing for thing in things if self.is_owners(thing)] for kind, things in found.items()}
        ours.update({kind: [thing for thing in ours[kind] if thing[key] == self.name] for kind, key in named.items()})
        if len(ours["instances"]) > 1:
            ids = ", ".join(f"{it['InstanceId']} of {launch_of(it)}" for it in ours["instances"])
            raise Refusal(f"{len(ours['instances'])} instances carry the tag {self.tag}={self.name} ({ids}): take it from all but one, or terminate them.")
        return ours

    def check_owners(self, found):
        """Refuses a name that somebody else has, and things that nobody has."""
        for instance in found["instances"] + found["leaving"]:
            owner = self.owner_of(instance)
            if owner and owner != self.owner:
                raise Refusal(
                    f"The deployment {self.name} belongs to {owner} (instance {instance['InstanceId']}, launched {launch_of(instance)}), and this is"
                    f" {self.owner}: choose another ec2_instance_name, or give its ec2_instance_owner if it is yours."
                )
        nobodys = [id_of(thing) for things in found.values() for thing in things if not self.owner_of(thing) and not self.is_owners(thing)]
        if nobodys:
            raise Refusal(
                f"What carries the tag {self.tag}={self.name} has no owner ({', '.join(nobodys)}), as an earlier version did not note one: if it is yours,"
                f" give -e ec2_instance_adopt={','.join(nobodys)}, else choose another ec2_instance_name."
            )

    def tagged(self):
        """Returns what carries the tag, whoever's it is."""
        tagged = {"Name": f"tag:{self.tag}", "Values": [self.name]}
        states = {"Name": "instance-state-name", "Values": ALIVE + LEAVING}
        reservations = self.all("describe_instances", "Reservations", Filters=[tagged, states])
        instances = [instance for reservation in reservations for instance in reservation["Instances"]]
        return {
            "instances": [instance for instance in instances if instance["State"]["Name"] in ALIVE],
            "leaving": [instance for instance in instances if instance["State"]["Name"] in LEAVING],
            "groups": self.all("describe_security_groups", "SecurityGroups", Filters=[tagged]),
            "keys": self.ec2.describe_key_pairs(Filters=[tagged])["KeyPairs"],
            "volumes": self.all("describe_volumes", "Volumes", Filters=[tagged, {"Name": "status", "Values": ["available"]}]),
        }

    def check_region(self):
        names = [region["RegionName"] for region in self.ec2.describe_regions()["Regions"]]
        if self.region not in names:
            raise Refusal(f"This account has no region {self.region}: set AWS_REGION to one of {', '.join(sorted(names))}.")

    def instance_type(self, wanted):
        """Returns what AWS says of an instance type, and the zones that offer it."""
        try:
            found = self.ec2.describe_instance_types(InstanceTypes=[wanted])["InstanceTypes"]
        except boto.ClientError as error:
            if error.response["Error"]["Code"] not in ("InvalidInstanceType", "InvalidParameterValue"):
                raise
            found = []
        offers = self.all(
            "describe_instance_type_offerings",
            "InstanceTypeOfferings",
            LocationType="availability-zone",
            Filters=[{"Name": "instance-type", "Values": [wanted]}],
        )
        if not found or not offers:
            raise Refusal(
                f"There is no instance type {wanted} in {self.region}: choose another with ec2_instance_type (t2.micro and t3.micro are x86_64, t4g.micro is arm64)."
            )
        return found[0], sorted(offer["Location"] for offer in offers)

    def architecture(self, about):
        offered = [name for name in about["ProcessorInfo"]["SupportedArchitectures"] if name in DEBIAN_ARCHITECTURES]
        asked = self.wanted["architecture"] or (offered + [""])[0]
        if asked not in offered:
            raise Refusal(
                f"The instance type {about['InstanceType']} is {' or '.join(offered) or 'of no architecture that pgpair has'},"
                f" not {asked or 'x86_64 or arm64'}: change ec2_instance_type or ec2_instance_architecture."
            )
        return asked

    def image(self, architecture):
        wanted = self.wanted
        if wanted["image_id"]:
            return self.given_image(wanted["image_id"], architecture)
        name = wanted["image_name"].replace("{arch}", DEBIAN_ARCHITECTURES[architecture])
        filters = {"name": name, "architecture": architecture, "virtualization-type": "hvm", "root-device-type": "ebs", "state": "available"}
        found = self.ec2.describe_images(
            Owners=[wanted["image_owner"]], Filters=[{"Name": key, "Values": [value]} for key, value in filters.items()]
        )["Images"]
        if not found:
            raise Refusal(f"The account {wanted['image_owner']} publishes no image {name} for {architecture} in {self.region}: give ec2_instance_image_id.")
        return max(found, key=lambda image: (image["CreationDate"], image["ImageId"]))

    def given_image(self, image_id, architecture):
        try:
            found = self.ec2.describe_images(ImageIds=[image_id])["Images"]
        except boto.ClientError as error:
            if not error.response["Error"]["Code"].startswith("InvalidAMIID"):
                raise
            found = []
        if not found:
            raise Refusal(f"There is no image {image_id} in {self.region} that this account may use: check ec2_instance_image_id.")
        if found[0]["Architecture"] != architecture:
            raise Refusal(
                f"The image {image_id} is {found[0]['Architecture']} and the instance type {self.wanted['instance_type']} is {architecture}:"
                " change ec2_instance_image_id or ec2_instance_type."
            )
        return found[0]

    def check_volume(self, image):
        devices = [mapping.get("Ebs", {}) for mapping in image["BlockDeviceMappings"] if mapping["DeviceName"] == image["RootDeviceName"]]
        least = max([ebs.get("VolumeSize", 0) for ebs in devices] + [0])
        if self.wanted["volume_size"] < least:
            raise Refusal(f"The image {image['ImageId']} needs {least} GiB, and ec2_instance_volume_size is {self.wanted['volume_size']}.")

    def subnet(self, zones):
        """Returns where a new instance goes."""
        if self.wanted["subnet_id"]:
            return self.given_subnet(self.wanted["subnet_id"], zones)
        vpc_id = self.wanted["vpc_id"]
        filters = [{"Name": "vpc-id", "Values": [vpc_id or self.default_vpc()]}, {"Name": "state", "Values": ["available"]}]
        subnets = self.all("describe_subnets", "Subnets", Filters=filters)
        fitting = [subnet for subnet in subnets if subnet["AvailabilityZone"] in zones]
        if not fitting:
            raise Refusal(
                f"No subnet of {vpc_id or 'the default VPC'} is in a zone that offers {self.wanted['instance_type']} ({', '.join(zones)}):"
                " give ec2_instance_subnet_id or another ec2_instance_type."
            )
        return min(fitting, key=lambda subnet: (not subnet["MapPublicIpOnLaunch"], subnet["AvailabilityZone"], subnet["SubnetId"]))

    def given_subnet(self, subnet_id, zones):
        try:
            subnet = self.ec2.describe_subnets(SubnetIds=[subnet_id])["Subnets"][0]
        except boto.ClientError as error:
            if not error.response["Error"]["Code"].startswith("InvalidSubnetID"):
                raise
            raise Refusal(f"There is no subnet {subnet_id} in {self.region}: check ec2_instance_subnet_id.") from None
        if self.wanted["vpc_id"] not in ("", subnet["VpcId"]):
            raise Refusal(f"The subnet {subnet_id} is in {subnet['VpcId']}, not in {self.wanted['vpc_id']}: give one of the two.")
        if subnet["AvailabilityZone"] not in zones:
            raise Refusal(
                f"{subnet['AvailabilityZone']}, where the subnet {subnet_id} is, does not offer {self.wanted['instance_type']} ({', '.join(zones)} would)."
            )
        return subnet

    def default_vpc(self):
        found = self.all("describe_vpcs", "Vpcs", Filters=[{"Name": "is-default", "Values": ["true"]}])
        if not found:
            raise Refusal(
                f"This account has no default VPC in {self.region}: make one with aws ec2 create-default-vpc, or give ec2_instance_vpc_id or ec2_instance_subnet_id."
            )
        return found[0]["VpcId"]

    def key(self):
        """Returns the key pair's name, the material to import if it is to be imported, and what is there."""
        wanted = self.wanted
        name = wanted["key_name"] or self.name
        material = "" if wanted["key_name"] else read_public_key(wanted["public_key_file"])
        private = wanted["private_key_file"] or wanted["public_key_file"].removesuffix(".pub")
        check_private_key(private, bool(wanted["private_key_file"]))
        found = self.ec2.describe_key_pairs(Filters=[{"Name": "key-name", "Values": [name]}], IncludePublicKey=True)["KeyPairs"]
        if wanted["key_name"] and not found:
            raise Refusal(f"There is no key pair {name} in {self.region}: check ec2_instance_key_name, or give ec2_instance_public_key_file instead.")
        if material and found and not self.carries_tag(found[0]):
            raise Refusal(
                f"A key pair {name} exists and is not this deployment's (it lacks the tag {self.tag}={self.name} or the owner {self.owner}): set ec2_instance_key_name to use it,"
                " or ec2_instance_name to another name."
            )
        there = " ".join(found[0].get("PublicKey", "").split()[:2]) if found else ""
        return {"name": name, "material": material, "exists": bool(found), "same": not material or there == material}

    def check_group(self, vpc_id):
        filters = [{"Name": "vpc-id", "Values": [vpc_id]}, {"Name": "group-name", "Values": [self.name]}]
        found = self.all("describe_security_groups", "SecurityGroups", Filters=filters)
        if found and not self.carries_tag(found[0]):
            raise Refusal(
                f"A security group {self.name} ({found[0]['GroupId']}) exists and is not this deployment's (it lacks the tag {self.tag}={self.name}"
                f" or the owner {self.owner}): set ec2_instance_name to another name."
            )

    def differences(self, instance, key):
        """Returns what of a running instance is not as asked and stays so, as sentences."""
        wanted = self.wanted
        kept = []
        if instance["InstanceType"] != wanted["instance_type"]:
            kept.append(f"its type is {instance['InstanceType']}, not {wanted['instance_type']} (stop it, then change the type in AWS)")
        if wanted["image_id"] not in ("", instance["ImageId"]):
            kept.append(f"it was made from {instance['ImageId']}, not from {wanted['image_id']}")
        if wanted["subnet_id"] not in ("", instance["SubnetId"]):
            kept.append(f"it is in {instance['SubnetId']}, not in {wanted['subnet_id']}")
        if wanted["vpc_id"] not in ("", instance["VpcId"]):
            kept.append(f"it is in {instance['VpcId']}, not in {wanted['vpc_id']}")
        if instance.get("KeyName") != key["name"]:
            kept.append(f"it was made with the key pair {instance.get('KeyName')}, not with {key['name']}")
        elif not key["same"]:
            kept.append("it was made with another public key: add the new one to ~/.ssh/authorized_keys on it")
        return kept + self.volume_differences(instance)

    def volume_differences(self, instance):
        root = [mapping["Ebs"]["VolumeId"] for mapping in instance["BlockDeviceMappings"] if mapping["DeviceName"] == instance["RootDeviceName"]]
        kept = []
        for volume in self.all("describe_volumes", "Volumes", VolumeIds=root) if root else []:
            if not volume["Encrypted"]:
                kept.append("its root volume is not encrypted")
            if volume["VolumeType"] != "gp3":
                kept.append(f"its root volume is {volume['VolumeType']}, not gp3 (aws ec2 modify-volume)")
            if volume["Size"] != self.wanted["volume_size"]:
                kept.append(f"its root volume has {volume['Size']} GiB, not {self.wanted['volume_size']} (aws ec2 modify-volume)")
        return kept

    def plan(self, ours):
        """Returns what is to be created, and from what."""
        instance = (ours["instances"] + [None])[0]
        about, zones = self.instance_type(self.wanted["instance_type"])
        architecture = self.architecture(about)
        key = self.key()
        if instance and instance["InstanceType"] != about["InstanceType"]:
            about, zones = self.instance_type(instance["InstanceType"])
        made = {"key": key, "zones": zones, "free_tier": about.get("FreeTierEligible", False), "memory_mib": about["MemoryInfo"]["SizeInMiB"]}
        made.update(burstable=about.get("BurstablePerformanceSupported", False))
        if instance:
            made.update(image_id=instance["ImageId"], root_device=instance["RootDeviceName"], instance_type=instance["InstanceType"])
            made.update(subnet_id=instance["SubnetId"], vpc_id=instance["VpcId"], key_name=instance.get("KeyName"))
            made.update(kept=self.differences(instance, key))
        else:
            image = self.image(architecture)
            self.check_volume(image)
            subnet = self.subnet(zones)
            made.update(image_id=image["ImageId"], image_name=image["Name"], root_device=image["RootDeviceName"], instance_type=about["InstanceType"])
            made.update(subnet_id=subnet["SubnetId"], vpc_id=subnet["VpcId"], key_name=key["name"], kept=[])
        self.check_group(made["vpc_id"])
        made.update(architecture=instance["Architecture"] if instance else architecture)
        return made


def id_of(thing):
    """Returns the id of a volume, an instance, a group or a key pair."""
    return next(str(thing[key]) for key in ("InstanceId", "VolumeId", "GroupId", "KeyPairId") if key in thing)


def owner_of(thing, tag):
    return next((it["Value"] for it in thing.get("Tags", []) if it["Key"] == tag), "")


def launch_of(instance):
    launched = instance.get("LaunchTime")
    return launched.strftime("%Y-%m-%d %H:%M UTC") if launched else "unknown"


def things(ours, owner):
    """Returns what there is, as a person would say it."""
    instances = [
        f"instance {it['InstanceId']} ({it['InstanceType']}, {it['State']['Name']}, launched {launch_of(it)}, owner {owner}) with its volume"
        for it in ours["instances"] + ours["leaving"]
    ]
    volumes = [f"volume {it['VolumeId']} ({it['Size']} GiB)" for it in ours["volumes"]]
    groups = [f"security group {it['GroupId']} ({it['GroupName']})" for it in ours["groups"]]
    return instances + volumes + groups + [f"key pair {it['KeyName']}" for it in ours["keys"]]


def survey(module):
    """Returns all that the role needs to know."""
    wanted = module.params["wanted"]
    rules = ingress(wanted) if wanted else []
    account = Account(module)
    account.check_region()
    ours = account.ours()
    facts = {"region": account.region, "account": account.caller["Account"], "owner": account.owner, "ours": ours, "things": things(ours, account.owner)}
    facts["adopted"] = [id_of(thing) for kind in ours.values() for thing in kind if not account.owner_of(thing)]
    if wanted:
        facts.update(plan=account.plan(ours), ingress=rules)
    return facts


def sentence(error, region):
    """Says what an error of AWS's library means to the one who runs this."""
    if isinstance(error, boto.ClientError):
        about = error.response["Error"]
        if about["Code"] in DENIED:
            return f"{DENIED[about['Code']]} ({about['Code']}): {CREDENTIALS}"
        if about["Code"] in ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException"):
            return f"These credentials may not call {error.operation_name}: the role's files/policy.json lists the rights that are needed."
        return f"AWS refuses {error.operation_name}: {about.get('Message') or about['Code']}"
    if isinstance(error, (boto.NoCredentialsError, boto.PartialCredentialsError, boto.ProfileNotFound)):
        return f"{error}: {CREDENTIALS}"
    if isinstance(error, (boto.EndpointConnectionError, boto.HTTPClientError, boto.InvalidRegionError)):
        return f"AWS does not answer ({error}): is the region {region} right, and is there a network?"
    return f"{error}: {CREDENTIALS}"


def options():
    lists = dict(type="list", elements="str", default=[])
    text = dict(type="str", default="")
    return dict(
        admin_cidrs=lists,
        admin_anywhere=dict(type="bool", default=False),
        probe_cidrs=lists,
        probe_port=dict(type="int", default=5000),
        key_name=dict(text, no_log=False),
        public_key_file=dict(type="path", default=""),
        private_key_file=dict(type="path", default="", no_log=False),
        instance_type=text,
        architecture=text,
        image_id=text,
        image_owner=text,
        image_name=text,
        volume_size=dict(type="int", default=0),
        vpc_id=text,
        subnet_id=text,
    )


def main():
    module = AnsibleAWSModule(
        argument_spec=dict(
            name=dict(type="str", required=True),
            tag=dict(type="str", required=True),
            owner=dict(type="str", default=""),
            owner_tag=dict(type="str", required=True),
            adopt=dict(type="list", elements="str", default=[]),
            wanted=dict(type="dict", options=options()),
        ),
        supports_check_mode=True,
    )
    try:
        module.exit_json(changed=False, **survey(module))
    except Refusal as refusal:
        module.fail_json(msg=str(refusal) + NOTHING_TOUCHED)
    except (boto.ClientError, boto.BotoCoreError) as error:
        words = sentence(error, module.region)
        module.fail_json(msg=words[0].upper() + words[1:] + ("" if words[-1] in ".?!" else ".") + NOTHING_TOUCHED)
    except ResponseParserError:
        module.fail_json(msg=f"What answers for AWS in {module.region} is not AWS: is that region right, and does no proxy interfere?" + NOTHING_TOUCHED)


if __name__ == "__main__":
    main()
