//! The examples for nginx and Caddy, each in front of the installed server, at the root of a host and below a path: pages,
//! events, a log that is being written, and figures for those alone who watch.

use super::machine::Machine;
use crate::command::Failed;

/// The Debian packages of both.
pub(super) const PACKAGES: &str = "nginx-light caddy";

/// Starts both proxies, each with the example for a host of its own and with that for a path of another host. nginx
/// listens at the ports 80 and 82. Caddy listens at 81 and 83, without certificates, which nobody here would sign.
const START: &str = r#"
examples=/usr/share/doc/brigandine/examples
cp $examples/nginx.conf /etc/nginx/conf.d/brigandine.conf
echo "server { listen 82; server_name www.example.org; include $examples/nginx-path.conf; }" > /etc/nginx/conf.d/path.conf
rm -f /etc/nginx/sites-enabled/default
nginx -t
nginx
for file in Caddyfile Caddyfile-path; do
    caddy validate --adapter caddyfile --config $examples/$file
    cat $examples/$file >> /srv/Caddyfile
done
sed -i 's|^ci.example.org {|http://ci.example.org:81 {|; s|^www.example.org {|http://www.example.org:83 {|' /srv/Caddyfile
# Caddy keeps its parent's output open.
caddy start --adapter caddyfile --config /srv/Caddyfile > /srv/caddy.said 2>&1 || { cat /srv/caddy.said; exit 1; }
"#;

/// Gives the server the lines that the example `$example` has in its comments, by `$how`: a reload or a restart.
const CONFIGURE: &str = r#"
file=/etc/brigandine/brigandine.toml
test -e /srv/without-web.toml || cp $file /srv/without-web.toml
cp /srv/without-web.toml $file
sed -n 's/^#   //p' /usr/share/doc/brigandine/examples/$example >> $file
systemctl $how brigandine
"#;

/// Asks the proxy at the port `$port` for `$host`, below `$base`. What begins at once must arrive at once, although it
/// goes on.
const ASK: &str = r#"
curl="timeout 10 curl --silent --show-error --no-buffer --header Host:$host"
here=http://127.0.0.1:$port$base
first() {
    $curl "$here$1" > /run/first &
    read -r line < /run/first
    kill $!
    wait $! || true
    echo "$line"
}
test -p /run/first || mkfifo /run/first
$curl $here/ | grep -q "href=\"$base/"
test "$(first /live)" = 'retry: 2000'
build=$($curl "$here/api/queue?nr=1" | sed 's/^[^0-9]*\([0-9]*\).*/\1/')
test "$(first "/build/$build/log/raw")" = begun
test "$(first "/build/$build/log/live")" = 'retry: 1000'
$curl $here/metrics | grep -q '^brigandine_ready 1'
for path in /metrics /readyz; do
    status=$($curl --interface 127.0.0.2 --output /dev/null --write-out '%{http_code}' $here$path)
    test $status = 403 || test $status = 404
done
"#;

/// Asks for the path without its slash: the answer leads to the page.
const SLASH: &str = r#"
to=$($curl --output /dev/null --write-out '%{redirect_url}' $here)
test "$to" = "http://$host$base/" || test "$to" = "$here/"
"#;

/// Runs both proxies with the examples. A build that has printed "begun" runs, and is the only one in the queue.
pub(super) fn check(machine: &Machine) -> Result<(), Failed> {
    // Debian would start both, with pages of their own at the same port.
    machine.run(&format!(
        "systemctl mask nginx caddy
        apt-get install --yes --quiet --no-install-recommends {PACKAGES}"
    ))?;
    machine.run(START)?;
    for (examples, ports, host, base) in [
        (["nginx.conf", "Caddyfile"], [80, 81], "ci.example.org", ""),
        (["nginx-path.conf", "Caddyfile-path"], [82, 83], "www.example.org", "/ci"),
    ] {
        // A new `base` needs a restart.
        let (how, slash) = if base.is_empty() { ("reload", "") } else { ("restart", SLASH) };
        for (example, port) in examples.iter().zip(ports) {
            machine.run(&format!("example={example} how={how}\n{CONFIGURE}"))?;
            machine.wait_for(&format!("port={port} host={host} base={base}\n{ASK}{slash}"))?;
        }
    }
    // In order, both would wait for the log, which goes on.
    machine.run(
        "kill -9 $(pidof nginx caddy); cp /srv/without-web.toml /etc/brigandine/brigandine.toml",
    )?;
    Ok(())
}
