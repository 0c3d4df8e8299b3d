//! Networks with address ranges of their own, and addresses of services in them.

use crate::common::{check, load};

#[test]
fn addresses_are_read_and_printed_again() {
    let text = "
services:
  web: {image: a, networks: {front: {ipv4_address: 10.9.0.7, aliases: [w]}, default: }}
networks:
  front:
    ipam:
      config:
        - subnet: 10.9.0.0/24
          ip_range: 10.9.0.64/26
          gateway: 10.9.0.254
          aux_addresses: {router: 10.9.0.5}
";
    let app = load(text);
    let front = &app.networks["front"];
    assert_eq!(front.subnet, "10.9.0.0/24".parse().ok());
    assert_eq!(front.range, "10.9.0.64/26".parse().ok());
    assert_eq!(front.gateway, "10.9.0.254".parse().ok());
    assert_eq!(front.reserved["router"].to_string(), "10.9.0.5");
    assert!(
        front.subnet_at.0.as_ref().is_some_and(|at| at.ends_with("compose.yaml:8:19")),
        "{:?}",
        front.subnet_at
    );
    assert_eq!(app.services["web"].networks["front"].address, "10.9.0.7".parse().ok());
    assert_eq!(load(&throng_compose::to_yaml(&app)), app);
}

#[test]
fn what_is_wrong_about_addresses_is_told_at_its_place() {
    check(
        "services:
  a: {image: a, networks: {n: {ipv4_address: 10.9.1.7}}}
  b: {image: a, networks: {n: {ipv4_address: 10.9.0.1}}}
  c: {image: a, networks: {n: {ipv4_address: 10.9.0.255}}}
  d: {image: a, networks: {n: {ipv4_address: 10.9.0.9}}}
  e: {image: a, networks: {plain: {ipv4_address: 10.9.0.10}}}
  f: {image: a, networks: {n: {ipv4_address: here}}}
  g: {image: a, networks: {default: {ipv4_address: 10.9.0.11}}}
networks:
  n: {ipam: {config: [{subnet: 10.9.0.0/24, aux_addresses: {printer: 10.9.0.9}}]}}
  plain:
",
        r#"compose.yaml:2:46: error: 10.9.1.7 is not in the subnet 10.9.0.0/24 (hint: take one from 10.9.0.1 to 10.9.0.254)
compose.yaml:3:46: error: 10.9.0.1 is the address of this host in the network n (hint: take another one, or give the network a gateway:)
compose.yaml:4:46: error: 10.9.0.255 stands for all of 10.9.0.0/24 and can be nobody's own (hint: take one from 10.9.0.1 to 10.9.0.254)
compose.yaml:5:46: error: 10.9.0.9 is kept for "printer" in the network n (hint: take another one, or remove it from aux_addresses)
compose.yaml:6:50: error: an address in the network plain, which has no subnet of its own (hint: add networks: {plain: {ipam: {config: [{subnet: 172.28.0.0/16}]}}})
compose.yaml:7:46: error: expected an IPv4 address such as 172.28.0.5, found "here"
compose.yaml:8:52: error: an address in the network default, which has no subnet of its own (hint: add networks: {default: {ipam: {config: [{subnet: 172.28.0.0/16}]}}})"#,
    );
}

#[test]
fn an_address_is_one_replicas_alone() {
    check(
        "services:
  a: {image: a, networks: {n: {ipv4_address: 10.9.0.7}}}
  b: {image: a, networks: {n: {ipv4_address: 10.9.0.7}}}
  c: {image: a, scale: 2, networks: {n: {ipv4_address: 10.9.0.8}}}
  d: {image: a, deploy: {update_config: {order: start-first}}, networks: {n: {ipv4_address: 10.9.0.9}}}
networks: {n: {ipam: {config: [{subnet: 10.9.0.0/24}]}}}
",
        r#"compose.yaml:3:46: error: a and b are both to have 10.9.0.7 in n; compose.yaml:2:46: a has it here (hint: give one of them another address)
compose.yaml:4:56: error: 2 replicas of c cannot all have 10.9.0.8 (hint: have one replica, or remove ipv4_address and use the service's name)
compose.yaml:5:93: error: with start-first two replicas of d are there at a time, which cannot both have 10.9.0.9 (hint: write order: stop-first, or remove ipv4_address and use the service's name)"#,
    );
}

#[test]
fn what_is_wrong_about_ranges_is_told_at_its_place() {
    check(
        "services: {a: {image: a}}
networks:
  n: {ipam: {config: [{gateway: 10.9.0.1}]}}
  m: {ipam: {config: [{subnet: 10.9.0.0/24, gateway: 10.8.0.1, ip_range: 10.0.0.0/8}]}}
  o: {ipam: {config: [{subnet: 10.7.0.0/24, gateway: 10.7.0.9, aux_addresses: {x: 10.7.0.9}}]}}
  p: {ipam: {config: [{subnet: 10.6.0.0/24, ip_range: 10.6.0.5/28, aux_addresses: {x: ::1}}]}}
",
        r#"compose.yaml:3:33: error: the address 10.9.0.1 of gateway without a subnet that it is in (hint: add a subnet: beside it, such as 172.28.0.0/16)
compose.yaml:4:54: error: 10.8.0.1 is not in the subnet 10.9.0.0/24 (hint: take one from 10.9.0.1 to 10.9.0.254)
compose.yaml:4:74: error: 10.0.0.0/8 is not in the subnet 10.9.0.0/24 (hint: write a part of the subnet)
compose.yaml:5:79: error: "x" is to have 10.7.0.9, which is the gateway's (hint: give one of them another address)
compose.yaml:6:55: error: "10.6.0.5/28" has bits set beyond its prefix; a range is 10.6.0.0/28
compose.yaml:6:87: warning: IPv6 addresses are not honoured yet"#,
    );
}
