//! Texts that are longer than the kernel accepts as one argument.

use super::{newest_log, refusal};
use crate::support::Place;

#[test]
fn scripts_of_any_length_run_and_variables_beyond_the_kernels_bound_are_refused() {
    let place = Place::new();
    let repository = place.repository("sample");
    place.specify(&[("sample", &repository, "")]);
    // Lengths around the kernel's limit for one text, and far beyond it.
    for bytes in [131_070, 131_071, 131_072, 140_000, 900_000] {
        let end = "echo \"$0\" | grep -q . && echo done-$#\nfalse || echo failed\n";
        let filler = format!("# {}\n", "x".repeat(bytes - end.len() - 3));
        let script = format!("{filler}{end}");
        assert_eq!(script.len(), bytes);
        repository.commit(&[(
            "brigandine.toml",
            &format!("[[job]]\nname = \"one\"\ncommand = '''\n{script}'''\n"),
        )]);
        place.good_one_shot();
        assert_eq!(newest_log(&place), "done-0\nfailed\n", "{bytes}");
    }
    let long = "v".repeat(131_072);
    let half = "v".repeat(130_000);
    let many: String = (0..8).map(|number| format!("V{number} = '{half}'\n")).collect();
    for (more, told) in [
        (
            format!("command = 'true'\nenv = {{ LONG = '{long}' }}"),
            "the variable `LONG` has 131077 bytes",
        ),
        (format!("command = ['echo', '{long}']"), "an argument of `command` has 131072 bytes"),
        (format!("command = 'true'\n[job.env]\n{many}"), "`command` and its variables have"),
    ] {
        repository.jobs(&[("one", &more)]);
        let said = refusal(&place);
        assert!(said.contains(told), "{said}");
        assert!(said.contains("a file of the repository"), "{said}");
    }
    // A job that is too long for one line of an evaluator is refused too.
    repository.jobs(&[(
        "one",
        &format!("command = 'true'\n[job.env]\n{many}{}", many.replace("V", "W")),
    )]);
    let said = refusal(&place);
    assert!(said.contains("1048576 bytes on one line"), "{said}");
    // The longest variable that the kernel accepts.
    let most = "v".repeat(131_071 - "LONG=".len());
    repository
        .jobs(&[("one", &format!("command = 'echo ${{#LONG}}'\nenv = {{ LONG = '{most}' }}"))]);
    place.good_one_shot();
    assert_eq!(newest_log(&place), "131066\n");
}
