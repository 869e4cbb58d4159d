# What an open stream costs as time goes by: nothing.  A day of heartbeats,
# 100,000 messages: over HTTP/1.1, TLS, HTTP/2.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use POSIX ();
use RT;

need('curl', 'openssl', 'cc');

my $day = 24 * 3600 / 15;       # heartbeats of the default
my $limit = 200;                # KB that a worker's memory may move

plan(skip_all => 'a sanitizer keeps what was freed') if asan();

my $pem = dir() . '/pem';
system("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    . " -keyout $pem.key -out $pem.crt >/dev/null 2>&1") == 0
    or die "no certificate\n";

my $redis = RT::Redis->new;

sub nginx (%more) {
    return RT::Nginx->new(redis => $redis, workers => 1,
        vars => { PEM => $pem },
        http => 'rt_hub app { zone 8m; redis %%REDIS%%; }
                 rt_hub mem { zone 32m; history 100; }',
        server => <<'END', %more);
            listen 127.0.0.1:%%PORT1%% http2;
            listen 127.0.0.1:%%PORT2%% ssl;
            listen 127.0.0.1:%%PORT3%% ssl http2;
            ssl_certificate %%PEM%%.crt;
            ssl_certificate_key %%PEM%%.key;
            send_timeout 10h;
            location ~ ^/app/(?<channel>\w+)$ { rt_subscribe app $channel; }
            location ~ ^/mem/(?<channel>\w+)$ {
                rt_subscribe mem $channel;
                rt_heartbeat 100ms;
                rt_buffer 16m;
                sendfile off;
            }
            location ~ ^/publish/(?<channel>\w+)$ {
                client_max_body_size 1m;
                rt_publish mem $channel;
            }
END
}

# For a day of heartbeats nginx' clock is a hundred times as fast.

my $speed = 100;

sub fast_clock {
    my $file = dir() . '/clock';
    RT::spew("$file.c", <<'END');
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/epoll.h>
#include <time.h>

int
clock_gettime(clockid_t id, struct timespec *ts)
{
    static int (*real)(clockid_t, struct timespec *);
    long long ns;

    if (!real) {
        real = (int (*)(clockid_t, struct timespec *))
                   dlsym(RTLD_NEXT, "clock_gettime");
    }
    if (id != CLOCK_MONOTONIC_COARSE && id != CLOCK_MONOTONIC) {
        return real(id, ts);
    }
    if (real(CLOCK_MONOTONIC, ts) != 0) {
        return -1;
    }
    ns = (ts->tv_sec % 1000000 * 1000000000LL + ts->tv_nsec) * SPEED;
    ts->tv_sec = ns / 1000000000;
    ts->tv_nsec = ns % 1000000000;
    return 0;
}

int
epoll_wait(int fd, struct epoll_event *events, int n, int timeout)
{
    static int (*real)(int, struct epoll_event *, int, int);

    if (!real) {
        real = (int (*)(int, struct epoll_event *, int, int))
                   dlsym(RTLD_NEXT, "epoll_wait");
    }
    return real(fd, events, n,
                timeout > 0 ? (timeout + SPEED - 1) / SPEED : timeout);
}
END
    system("cc -shared -fPIC -DSPEED=$speed -o $file.so $file.c -ldl") == 0
        or die "the clock does not compile\n";
    return "$file.so";
}

# A stream through curl: what it gives is counted, and kept while it is short.

package Curl {
    use v5.36;
    use Errno qw(EAGAIN EINTR);
    use Time::HiRes qw(time);

    sub new ($class, @args) {
        pipe my $out, my $in or die "pipe: $!\n";
        my $pid = RT::spawn(sub {
            POSIX::dup2(fileno $in, 1);
            exec 'curl', '-sSNk', '-H', 'Accept: text/event-stream', @args;
        });
        close $in;
        $out->blocking(0);
        return bless { pid => $pid, out => $out, text => '', comments => 0,
                       data => [], id => undef }, $class;
    }

    # reads until COND or the deadline
    sub until ($self, $cond, $seconds = 10) {
        my $end = time + RT::scale($seconds);
        while (!$cond->()) {
            my $left = $end - time;
            return 0 if $left <= 0;
            my $bits = '';
            vec($bits, fileno $self->{out}, 1) = 1;
            select $bits, undef, undef, $left or next;
            my $n = sysread $self->{out}, $self->{text}, 65536,
                length $self->{text};
            next if !defined $n && ($! == EAGAIN || $! == EINTR);
            return 0 if !$n;
            while ($self->{text} =~ s/\A(.*)\n//) {
                my $line = $1;
                if ($line eq ':') { $self->{comments}++ }
                elsif ($line =~ /^data: (.*)/) { push @{$self->{data}}, $1 }
                elsif ($line =~ /^id: (.*)/) { $self->{id} = $1 }
            }
        }
        return 1;
    }

    sub close ($self) { RT::kill_group($self->{pid}) }
}

package main;

my %kinds = (
    'HTTP/1.1' => sub ($ngx) { ('--http1.1', 'http://127.0.0.1:' . $ngx->port) },
    'HTTP/2' => sub ($ngx) { ('--http2-prior-knowledge',
                              'http://127.0.0.1:' . $ngx->port(1)) },
    'TLS' => sub ($ngx) { ('--http1.1', 'https://127.0.0.1:' . $ngx->port(2)) },
    'HTTP/2, TLS' => sub ($ngx) { ('--http2',
                                   'https://127.0.0.1:' . $ngx->port(3)) },
);

sub stream ($ngx, $kind, $path) {
    my ($option, $url) = $kinds{$kind}->($ngx);
    my $curl = Curl->new($option, $url . $path);
    $curl->until(sub { defined $curl->{id} }) or die "$kind: no stream\n";
    return $curl;
}

# a day of heartbeats, and one who does not read all day

{
    my $ngx = nginx(env => { LD_PRELOAD => fast_clock() });
    my ($worker) = $ngx->workers;
    my @kinds = sort keys %kinds;
    my @curls = map { stream($ngx, $_, '/mem/idle') } @kinds;

    my $deaf = RT::SSE->new($ngx, '/mem/deaf', rcvbuf => 4096, keep_raw => 0);
    wait_for { $deaf->wait_comment } 5, 'heartbeats';
    my $large = 80;             # more than the sockets take
    my $http = RT::HTTP->new($ngx, timeout => 20);
    for my $n (1 .. $large) {
        $http->send(POST => '/publish/deaf', body => $n . 'x' x 100_000);
        my $status = $http->read->status;
        is($status, 202, 'published') if $status != 202;
    }

    for my $curl (@curls) {
        $curl->until(sub { $curl->{comments} >= 500 });
    }
    my $rss = $ngx->rss($worker);
    my @n = map { $_->{comments} } @curls;
    for my $i (0 .. $#kinds) {
        my $curl = $curls[$i];
        $curl->until(sub { $curl->{comments} >= $n[$i] + $day }, 60);
        cmp_ok($curl->{comments} - $n[$i], '>=', $day,
            "$kinds[$i]: a day of heartbeats");
    }
    my $moved = $ngx->rss($worker) - $rss;
    cmp_ok($moved, '<', $limit, "they move a worker by $moved KB");
    $_->close for @curls;

    my $before = $deaf->comments;
    my @got = $deaf->wait($large, 20);
    is(join(' ', map { $_->{data} =~ /^(\d+)x/ } @got),
        join(' ', 1 .. $large), 'who did not read gets all');
    cmp_ok($deaf->comments - $before, '<', 10 * $large,
        'without the heartbeats of the day');
    ok($deaf->wait_comment, 'and those that come now');
}

# 100,000 messages

my $ngx = nginx();
my ($worker) = $ngx->workers;
for my $kind (sort grep { $_ ne 'HTTP/1.1' } keys %kinds) {
    my $channel = lc $kind =~ s/\W//gr;
    my $curl = stream($ngx, $kind, "/app/$channel");
    $redis->wait_sub($channel);
    my ($sent, $wrong, $rss) = (0, 0);
    while ($sent < 101_000 && !$wrong) {
        my $n = 200;
        $redis->pipeline(['MULTI'], (map { [PUBLISH => $channel, $sent + $_] }
            0 .. $n - 1), ['EXEC']);
        $curl->until(sub { @{$curl->{data}} >= $n }) or $wrong++;
        my @got = splice @{$curl->{data}};
        $wrong++ if "@got" ne "@{[$sent .. $sent + $n - 1]}";
        $sent += $n;
        $rss = $ngx->rss($worker) if $sent == 1000;
    }
    is($wrong, 0, "$kind: 100,000 messages, in order");
    my $moved = $ngx->rss($worker) - $rss;
    cmp_ok($moved, '<', $limit, "$kind: they move a worker by $moved KB");
    $curl->close;
}

done_testing;
