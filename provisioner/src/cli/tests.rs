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
    assert!(Cli::try_parse_from(["kprov", "apply", "a.toml", "--at-once", "0"]).is_err());
}
