use super::*;

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn times_are_read_with_their_units() {
    let check = |text: &str, seconds: Option<u64>| {
        assert_eq!(duration(text).ok(), seconds.map(Duration::from_secs), "{text}");
    };
    check("90", Some(90));
    check("90s", Some(90));
    check("10m", Some(600));
    check("2h", Some(7200));
    check("0", None);
    check("3 weeks", None);
    check("999999999999999999m", None);
    check("m", None);
}

#[test]
fn every_command_has_help_that_says_what_it_does() {
    for command in Cli::command().get_subcommands() {
        assert!(command.get_about().is_some(), "{}", command.get_name());
    }
    let cli = Cli::try_parse_from(["kprov", "apply", "a.toml", "--timeout", "90s", "-vv"]).unwrap();
    assert_eq!(cli.verbosity(), 2);
    assert!(Cli::try_parse_from(["kprov", "apply"]).is_err());
    assert!(Cli::try_parse_from(["kprov", "apply", "a.toml", "--parallel", "0"]).is_err());
}

#[test]
fn hosts_can_be_chosen_wherever_hosts_are_asked() {
    for command in ["plan", "apply", "diff", "status", "reset", "unlock"] {
        let line = ["kprov", command, "a.toml", "--hosts", "a,b-[1-3]", "--tags", "x,y"];
        assert!(Cli::try_parse_from(line).is_ok(), "{command}");
        let both = ["kprov", command, "a.toml", "--parallel", "3", "--groups", "x"];
        assert!(Cli::try_parse_from(both).is_ok(), "{command}");
    }
    let line = ["kprov", "plan", "a.toml", "-o", "p.kplan", "--output", "json"];
    assert!(Cli::try_parse_from(line).is_ok());
    assert!(Cli::try_parse_from(["kprov", "plan", "a.toml", "--diff", "--no-diff"]).is_err());
}

#[test]
fn exit_codes_are_distinct_and_documented() {
    let codes = [
        Exit::Ok,
        Exit::Failed,
        Exit::BadInventory,
        Exit::Unfit,
        Exit::Partial,
        Exit::Changes,
        Exit::Unreached,
        Exit::Drifted,
        Exit::ForeignPlan,
        Exit::InputsChanged,
        Exit::Interrupted,
    ];
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operating.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    for code in codes {
        let code = code as u8;
        assert!(EXIT_CODES.contains(&format!("{code} ")), "{code}");
        assert!(guide.contains(&format!("\n| {code} | ")), "{code}");
    }
}
