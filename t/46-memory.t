# What an idle stream costs a worker: under 1 KB detached, attached little more
# than a request of nginx' own, over TLS little more than nginx' own connection;
# and no more when messages have passed: what a burst needs on its way is the
# worker's, and bounded.  1,000 of each, with nginx' default pools.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use RT;

plan(skip_all => 'an allocation of a pool is none of ASan') if asan();
need(qw(redis-server openssl node));

my $n = 1000;
my ($cert, $key) = map { dir() . "/$_" } qw(cert.pem key.pem);
is(system("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 "
    . "-nodes -subj /CN=localhost -keyout $key -out $cert 2> /dev/null"), 0,
    'a certificate');

my $client = dir() . '/tls.js';
RT::spew($client, <<'END');
// opens N connections one by one, asks, waits for what stands in the answer
const [port, path, n, until] = process.argv.slice(2);
const open = i => {
    if (i == n) { console.log('open'); return; }
    const s = require('tls').connect({ port, host: '127.0.0.1',
        rejectUnauthorized: false });
    let text = '', told = false;
    s.write(`GET ${path} HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n`
        + '\r\n');
    s.on('data', d => {
        if (told) { return; }
        text += d;
        if (text.includes(until)) { told = true; text = ''; open(i + 1); }
    });
};
open(0);
END

my $redis = RT::Redis->new;

# KB that a worker of its own holds for each of so many connections, opened by
# OPEN, which returns what keeps them; then what they are after each USE
sub cost ($open, @use) {
    my $ngx = RT::Nginx->new(redis => $redis, workers => 1,
        events => 'worker_connections 4096;',
        main => 'worker_rlimit_nofile 8192;',
        http => 'rt_hub app { redis %%REDIS%%; zone 16m; }
                 limit_req_zone $server_port zone=one:1m rate=1r/m;',
        server => <<"END");
        listen 127.0.0.1:%%PORT1%% ssl;
        ssl_certificate $cert;
        ssl_certificate_key $key;
        keepalive_timeout 1h;
        location /rt/ { rt_subscribe app c; rt_heartbeat 1h; }
        location /attached/ {
            rt_subscribe app c; rt_heartbeat 1h; rt_detach off;
        }
        location /held/ { limit_req zone=one burst=5000; root %%DIR%%; }
        location /small { return 200 "retry: none"; }
END
    my ($pid) = $ngx->workers;
    my $memory = sub {
        slurp("/proc/$pid/status") =~ /^RssAnon:\s+(\d+)/m;
        return $1;
    };
    # what the first ones bring stays
    my @first = map { $open->($ngx, $_) } 20;
    my $before = $memory->();
    my @held = $open->($ngx, $n);
    my @cost = ($memory->() - $before) / $n;
    for my $use (@use) {
        $use->($ngx, @first, @held);
        push @cost, ($memory->() - $before) / $n;
    }
    RT::kill_group($_->{pid}) for grep { ref eq 'HASH' } @first, @held;
    undef @held;
    undef @first;
    return @cost;
}

sub plain ($path, $until) {
    return sub ($ngx, $count) {
        return map {
            my $http = RT::HTTP->new($ngx);
            $http->{sock}->blocking(1);
            $http->send('GET', $path, headers => [Accept =>
                'text/event-stream']);
            my $text = '';
            while ($until && $text !~ /$until/) {
                sysread $http->{sock}, $text, 4096, length $text
                    or die "$path: closed\n";
            }
            $http;
        } 1 .. $count;
    };
}

sub tls ($path, $until) {
    return sub ($ngx, $count) {
        my $out = dir() . '/tls.' . $ngx->port . ".$count";
        my $pid = RT::spawn(['node', $client, $ngx->port(1), $path, $count,
            $until], out => $out);
        wait_for { slurp($out) =~ /open/ } 60, 'all are open';
        return { pid => $pid };
    };
}

my ($idle) = cost(plain('/small', 'retry'));
my $count = 0;
my $messages = sub ($ngx, @streams) {
    $redis->wait_sub('c');
    $redis->publish(c => ++$count . '-' . 'x' x 200) for 1 .. 100;
    for my $http (@streams) {
        my $text = '';
        while ($text !~ /data: $count-/) {
            sysread $http->{sock}, $text, 65536, length $text
                or die "a stream is closed\n";
        }
    }
};
my ($stream, @later) = cost(plain('/rt/', 'retry: \d+\n\n'),
    ($messages) x 5);
cmp_ok($stream, '<=', 1, sprintf
    'a stream: %.2f KB (an idle keep-alive connection: %.2f)', $stream, $idle);
# what one turn queues for all: 8 bytes of each message would be more
my @more = map { sprintf '%.0f', ($_ - $stream) * $n } @later;
cmp_ok($more[-1], '<=', 2048,
    "after each 100 messages the worker has @more KB more");

my ($held) = cost(sub ($ngx, $count) {
    my @all = plain('/held/', undef)->($ngx, $count);
    wait_for { get($ngx, '/small')->status == 200 } 5, 'all were read';
    return @all;
});
my ($attached) = cost(plain('/attached/', 'retry: \d+\n\n'));
cmp_ok($attached, '<=', $held + 0.5, sprintf
    'attached: %.2f KB (a request that limit_req holds: %.2f)', $attached,
    $held);

my ($tls_idle) = cost(tls('/small', 'retry'));
my ($tls) = cost(tls('/rt/', 'retry: '));
cmp_ok($tls, '<=', $tls_idle + 1, sprintf
    'over TLS: %.2f KB (an idle keep-alive connection: %.2f)', $tls,
    $tls_idle);

done_testing;
