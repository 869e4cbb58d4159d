# make run: serves the page, says how to publish, ends all on TERM and INT.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use RT;

plan(skip_all => 'runs the module of make') if asan();

for my $signal ('TERM', 'INT') {
    my $port = free_port();
    my $log = dir() . "/run-$signal.log";
    my $pid = RT::spawn(['make', '--no-print-directory', '-C', root(), 'run',
                         "PORT=$port"], out => $log);

    wait_ok { slurp($log) =~ /Ctrl-C ends it/ } 20, 'says that it is there';
    my ($redis) = slurp($log) =~ /redis-cli -p (\d+) publish orders:42 hello/;
    ok($redis, 'and how to publish');

    like(get("127.0.0.1:$port", '/')->body, qr/<html/i, 'the page');
    my $sse = RT::SSE->new("127.0.0.1:$port", '/rt/orders:42',
        headers => [Accept => 'text/event-stream']);
    wait_for { $sse->wait(0, 0.1); defined $sse->last_id } 5, 'a place';
    is(system("redis-cli -p $redis publish orders:42 hello >/dev/null"), 0,
        'published as it says');
    is(($sse->event // {})->{data}, 'hello', 'arrives');
    $sse->close;

    # as a terminal does: to make and all that it runs
    kill $signal, -$pid;
    ok(RT::poll_until(sub { !RT::running($pid) }, 20), "ends on $signal");
    unlike(slurp($log), qr/has ended/, 'because it was told to');
    unlike(slurp(root() . '/build/run/error.log'), qr/\[(?:alert|emerg)\]/,
        'nginx in good order');
    ok(!eval { get("127.0.0.1:$port", '/', timeout => 1) }, 'no nginx left');
    ok(!eval { get("127.0.0.1:$redis", '/', timeout => 1) }, 'no Redis left');
}

done_testing;
