#!/usr/bin/perl

# How far the module is from the limit, as ratios within one run: each thing is
# measured in rounds beside its own floor (a bare loop, nginx itself, a bare
# reader of Redis), on a core of its own where there are two.
#
#     make bench              about ten minutes
#     make bench-quick        less than one
#     make bench ONLY=fan,polls ROUNDS=11
#
# NAME=VALUE: size=full|quick|smoke, only=PART,... (fan, polls, memory,
# latency, intake, connects), rounds=N, out=DIR (build), corrupt=N, lose=N (the
# bare loop gets each Nth message wrong, see bare.c: the bench must fail).
#
# Prints a table; OUT/bench.json has all figures of all rounds, OUT/bench.svg
# is a plot.  A sequence, status or body that is not as it must be ends it with
# status 1 and no result.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use RT;
use Bench;
use Report;
use Time::HiRes qw(time);

my %opt = (size => 'full', only => '', out => root() . '/build',
           corrupt => 0, lose => 0);
for my $arg (@ARGV) {
    my ($name, $value) = $arg =~ /^(\w+)=(.*)\z/s or die "what is $arg?\n";
    $opt{lc $name} = $value if $value ne '';
}

# fan: channels, clients, messages a second, messages
my %sizes = (
    full => {
        rounds => 6, fan => [[1, 1000, 20, 60], [1, 10_000, 2, 8],
                             [10_000, 10_000, 20_000, 60_000]],
        polls => 40_000, table => 100_000, memory => 10_000,
        latency => [[10, 80], [100, 300], [1000, 3000]], clients => 1000,
        intake => 400_000, stream => 200_000, connects => 10_000,
    },
    quick => {
        rounds => 3, fan => [[1, 1000, 20, 16], [1000, 1000, 10_000, 8000]],
        polls => 8000, table => 10_000, memory => 2000,
        latency => [[100, 100]], clients => 1000,
        intake => 60_000, stream => 40_000, connects => 2000,
    },
    smoke => {
        rounds => 1, fan => [[1, 20, 50, 10], [20, 20, 100, 20]],
        polls => 300, table => 200, memory => 50,
        latency => [[100, 20]], clients => 100,
        intake => 1000, stream => 1000, connects => 50,
    },
);
my $size = $sizes{$opt{size}} // die "size=full, quick or smoke\n";
my $rounds = $opt{rounds} // $size->{rounds};

my @parts = (
    [fan      => \&fan,      $rounds * sum_of(map { 3 * $_->[3] / $_->[2] }
                                 @{$size->{fan}}) + 4],
    [polls    => \&polls,    $rounds * $size->{polls} * 10 / 45_000
                                 + $size->{table} / 7000 + 2],
    [memory   => \&memory,   4 * $size->{memory} / 6000 + 3],
    [latency  => \&latency,  $rounds * sum_of(map { 2 * $_->[1] / $_->[0] }
                                 @{$size->{latency}}) + 2],
    [intake   => \&intake,   $rounds * 8 * $size->{intake} / 150_000 + 3],
    [connects => \&connects, $rounds * 5 * $size->{connects} / 12_000 + 2],
);
if ($opt{only} ne '') {
    my %known = map { $_->[0] => 1 } @parts;
    my %only = map { $known{$_} ? ($_ => 1) : die "no part $_\n" }
        split /,/, $opt{only};
    @parts = grep { $only{$_->[0]} } @parts;
}

sub sum_of (@n) { return List::Util::sum0(@n) }


# progress

$| = 1;
my $started = time;
my ($done, $current) = (0, 0);

# FRACTION of the current part is done
sub progress ($what, $fraction = 0) {
    my $all = sum_of(map { $_->[2] } @parts);
    my $at = $done + $fraction * $current;
    my $left = $all - $at;
    # as slow as it has been so far
    $left *= (time - $started) / $at if $at > $all / 20;
    say sprintf '[%4d s, %4d s left]  %s', time - $started, $left, $what;
}

sub told ($what, $from, $to) {
    return sub ($round) {
        progress("$what, round $round of $rounds",
             $from + ($to - $from) * ($round - 1) / $rounds);
    };
}


# what is measured

my $quiet = 'access_log off; keepalive_requests 1000000000;
    keepalive_timeout 1h; error_log %%DIR%%/logs/error.log warn;';
my $events = 'worker_connections 19000; multi_accept on;';
my $nchan = (grep { -f } map { "$_/ngx_nchan_module.so" }
    '/usr/lib/nginx/modules', '/usr/lib64/nginx/modules')[0];
$nchan = undef if $ENV{RT_NGINX};       # which it may not fit
my $redis;

sub nginx ($http, $server, %args) {
    return RT::Nginx->new(redis => $redis, events => $events,
        main => Bench::affinity() . ' worker_rlimit_nofile 20000;',
        http => $http, server => "$quiet $server", %args);
}

# hub "app" and what the parts ask it for
sub ours ($hub = '', $server = '') {
    return nginx(<<"H", <<"S");
        rt_hub app { zone 64m; redis %%REDIS%%; }
        $hub
H
        rt_heartbeat 1h;
        location ~ ^/sse/(?<channel>\\w+)\$ { rt_subscribe app \$channel; }
        location = /status { rt_status json; }
        location = /204 { return 204; }
        location = /small { return 200 "hello, a small answer\\n"; }
        $server
S
}

sub theirs {
    return nginx('', <<'S', modules => [$nchan]);
        location ~ ^/sse/(\w+)$ {
            nchan_subscriber                eventsource;
            nchan_channel_id                $1;
            nchan_subscriber_first_message  newest;
        }
        location ~ ^/publish/(\w+)$ {
            nchan_publisher;
            nchan_channel_id  $1;
        }
S
}

sub worker ($ngx) { return ($ngx->workers)[0] // die "no worker\n" }

sub hub ($ngx, $name = 'app') {
    my $r = get($ngx, '/status');
    my ($hub) = grep { $_->{name} eq $name }
        @{JSON::PP::decode_json($r->body)->{hubs}};
    return $hub;
}

# the server's CPU time in COUNT of what LOAD does, each; and what that said
sub cost ($pid, $load, $rate, $count) {
    my $before = Bench::cpu_of($pid);
    my $r = $load->run($rate, $count);
    my $cost = (Bench::cpu_of($pid) - $before) / $r->{done};
    return wantarray ? ($cost, $r) : $cost;
}

sub channels_live ($name, $n) {
    RT::poll_until(sub {
        return @{$redis->cmd(PUBSUB => 'CHANNELS', $name)} >= $n;
    }, 30) // die "$n channels $name are not subscribed\n";
}


# 1. CPU time of the server for each message written to a client

sub fan {
    my $i = 0;
    for my $case (@{$size->{fan}}) {
        my ($channels, $clients, $rate, $count) = @$case;
        my $what = 'fan-out: ' . Report::commas($channels) . ' x '
            . Report::commas($clients / $channels);
        my @share = map { $_ / @{$size->{fan}} } $i, $i + 1;
        progress("$what, opening", $share[0]);

        my $bare = Bench::bare($redis,
            map { $_ => $opt{$_} } qw(corrupt lose));
        my %pid = (bare => $bare->{pid});
        my %common = (clients => $clients, channels => $channels,
                      redis => $redis->port);
        my %load = (bare => Bench::Load->new('fan', %common,
            port => $bare->{port}, name => 'b%u', path => '/sse/b%u'));
        my $ngx = ours();
        $pid{ngx_rt} = worker($ngx);
        $load{ngx_rt} = Bench::Load->new('fan', %common, port => $ngx->port,
            name => 'r%u', path => '/sse/r%u');
        my $peer;
        if ($nchan) {
            $peer = theirs();
            $pid{Nchan} = worker($peer);
            $load{Nchan} = Bench::Load->new('fan', %common,
                port => $peer->port, path => '/sse/n%u',
                http => $peer->port, post => '/publish/n%u');
        }
        channels_live("$_*", $channels) for qw(b r);

        # late: a channel's next message was there before all clients had the
        # last; several may then go in one write, which is another thing
        my %late = map { $_ => 0 } keys %load;
        my %values = Bench::rounds($rounds, told($what, @share),
            map { my $name = $_; ($name => sub {
                my ($cost, $r) = cost($pid{$name}, $load{$name}, $rate, $count);
                $late{$name}++ if $r->{p99} > 1000 * $channels / $rate;
                return $cost }) }
            keys %load);

        Report::row(part => 'fan', unit => 'us per delivery',
            label => Report::commas($channels)
                . ($channels == 1 ? ' channel, ' : ' channels, ')
                . Report::commas($clients) . ' clients',
            target => $channels == 1 ? 1.05 : 1.2, values => \%values,
            late => \%late);

        $_->close for values %load;
        Bench::end($bare);
        $_->stop for grep { defined } $ngx, $peer;
        $i++;
    }
}


# 2. CPU time of the server for each poll

sub polls {
    my $table = $size->{table};
    progress('polls: a table of ' . Report::commas($table));
    my $bare = Bench::bare($redis);
    my $ngx = ours('rt_hub many { zone 256m; history 1; subscribe m*;
                                  redis %%REDIS%%; }', <<'S');
        location ~ ^/many/(?<channel>\w+)$ { rt_subscribe many $channel; }
        location ~ ^/gate/(?<channel>\w+)$ {
            rt_gate app $channel;
            rewrite ^ /small.txt break;
        }
        location ~ ^/gates/(?<channel>\w+)$ {
            rt_gate many $channel;
            rewrite ^ /small.txt break;
        }
S
    RT::spew($ngx->dir . '/html/small.txt', "the application's\n");
    my $pid = worker($ngx);

    get($ngx, '/sse/c0');
    channels_live('c0', 1);
    $redis->publish(c0 => 'x' x 200);
    RT::poll_until(sub { $redis->cmd(PUBSUB => 'NUMPAT') }, 10)
        // die "the pattern is not subscribed\n";
    my $fill = Bench::Load->new('fan', redis => $redis->port, clients => 0,
        channels => $table, name => 'm%u');
    $fill->run(0, $table);
    $fill->close;
    RT::poll_until(sub { hub($ngx, 'many')->{channels} >= $table }, 30)
        // die "$table channels are not in the table\n";
    hub($ngx, 'many')->{evicted} == 0 or die "the zone is too small\n";

    my %ask = (
        bare304 => [$bare, path => '/304'],
        bare200 => [$bare, path => '/200', status => 200, body => 200],
        nginx   => [$ngx, path => '/204', status => 204],
        rt304   => [$ngx, path => '/sse/c0', etag => 1],
        rt200   => [$ngx, path => '/sse/c0', status => 200, body => 200],
        gate    => [$ngx, path => '/gate/c0', etag => 1],
        many304 => [$ngx, path => '/many/m%u', etag => 1, channels => $table],
        many200 => [$ngx, path => '/many/m%u', status => 200, body => 200,
                    channels => $table],
        manygate => [$ngx, path => '/gates/m%u', etag => 1,
                     channels => $table],
    );
    my %subs;
    for my $name (sort keys %ask) {
        my ($server, @args) = @{$ask{$name}};
        my $load = Bench::Load->new(poll => @args,
            port => ref $server eq 'HASH' ? $server->{port} : $server->port);
        my $of = $name =~ /^bare/ ? $bare->{pid} : $pid;
        $subs{$name} = sub { scalar cost($of, $load, 0, $size->{polls}) };
    }
    my $hits = sub { my @hubs = map { hub($ngx, $_) } qw(app many);
        return map { $_->{polls}{hit}, $_->{gate}{hit} } @hubs };
    my @before = $hits->();
    my %v = Bench::rounds($rounds, told('polls', 0.3, 1), %subs);
    my @after = $hits->();
    for my $i (0 .. 3) {
        my $n = $after[$i] - $before[$i];
        die "304 were answered by something else: $n\n"
            if $n != $rounds * $size->{polls};
    }

    for (['304', 'rt304', 'bare304', 1.08, '1 channel'],
         ['200 of 200 bytes', 'rt200', 'bare200', 1.2, '1 channel'],
         ['304 at rt_gate', 'gate', 'bare304', 1.08, '1 channel'],
         ['304', 'many304', 'bare304', 1.08],
         ['200 of 200 bytes', 'many200', 'bare200', 1.2],
         ['304 at rt_gate', 'manygate', 'bare304', 1.08])
    {
        my ($label, $ours, $floor, $target, $of) = @$_;
        $of //= Report::commas($table) . ' channels';
        Report::row(part => 'polls', unit => 'us per request',
            label => "$label, $of", target => $target, floor => 'return 204',
            values => { ngx_rt => $v{$ours}, 'return 204' => $v{nginx},
                        bare => $v{$floor} });
    }
    Bench::end($bare);
}


# 3. user memory of what only waits

sub memory {
    my $n = $size->{memory};
    my %values;
    my $measure = sub ($name, $pid, @load) {
        progress("memory: $name, " . Report::commas($n) . ' connections',
             (keys %values) / 8);
        my $before = Bench::memory_of($pid);
        my $load = Bench::Load->new(connect => keep => $n, @load);
        my $after = Bench::memory_of($pid);
        $load->close;
        push @{$values{$_}{$name}}, ($after->{$_} - $before->{$_}) / $n
            for qw(pss anon);
    };
    my @sse = (until => "\r\n\r\n", accept => 'text/event-stream',
               path => '/sse/k0');

    # each a fresh process: what is freed is used again, and would be free
    my $ngx = ours();
    $measure->('keep-alive', worker($ngx), port => $ngx->port,
               path => '/small');
    $ngx->stop;
    $ngx = ours();
    $measure->('ngx_rt', worker($ngx), port => $ngx->port, @sse);
    hub($ngx)->{streams}{sse}{opened} == $n or die "not $n streams\n";
    $ngx->stop;
    if ($nchan) {
        $ngx = theirs();
        $measure->('Nchan', worker($ngx), port => $ngx->port, @sse);
        $ngx->stop;
    }
    my $bare = Bench::bare($redis);
    $measure->('bare', $bare->{pid}, port => $bare->{port}, @sse);
    Bench::end($bare);

    for (['PSS', 'pss'], ['private', 'anon']) {
        Report::row(part => 'memory', unit => 'KB per stream',
            label => "$_->[0], " . Report::commas($n) . ' idle streams',
            floor => 'keep-alive', limit => 1, values => $values{$_->[1]});
    }
}


# 4. from PUBLISH to the last client of the channel

sub latency {
    my $clients = $size->{clients};
    my $bare = Bench::bare($redis);
    my $ngx = ours();
    my %common = (clients => $clients, channels => 100,
                  redis => $redis->port);
    my %load = (
        bare => Bench::Load->new('fan', %common, port => $bare->{port},
            name => 'lb%u', path => '/sse/lb%u'),
        ngx_rt => Bench::Load->new('fan', %common, port => $ngx->port,
            name => 'lr%u', path => '/sse/lr%u'),
    );
    channels_live("l$_*", 100) for qw(b r);

    my $i = 0;
    for my $case (@{$size->{latency}}) {
        my ($rate, $count) = @$case;
        my %values = Bench::rounds($rounds, told(
                "latency: $rate messages/s",
                map { $_ / @{$size->{latency}} } $i, $i + 1),
            map { my $name = $_; ($name => sub {
                $load{$name}->run($rate, $count) }) } keys %load);
        for my $p (qw(p50 p99)) {
            Report::row(part => 'latency', unit => 'ms',
                label => "$p, $rate messages/s", target => 1.1, values =>
                { map { my $name = $_;
                    ($name => [map { $_->{$p} } @{$values{$name}}]) }
                    keys %values });
        }
        $i++;
    }
    $_->close for values %load;
    Bench::end($bare);
    $ngx->stop;
}


# 5. what is taken from Redis, with no client

# Until all of COUNT was taken, in steps of 2 ms
sub until_taken ($now, $before, $count) {
    my $end = time + 60;
    while ((my $is = $now->() - $before) < $count) {
        die "messages are missing: $is of $count\n" if time > $end;
        Time::HiRes::sleep(0.002);
    }
}

# Once as it is published, once from behind: all is published while the reader
# is stopped and then taken at once, so that the reader is what is measured,
# neither the publisher nor the speed of Redis.
sub taken ($pid, $load, $count, $now) {
    my $before = $now->();
    my $start = time;
    $load->run(0, $count);
    until_taken($now, $before, $count);
    my $live = $count / (time - $start);

    $before = $now->();
    my $cpu = Bench::cpu_of($pid);
    RT::freeze($pid) or die "process $pid does not stop\n";
    $load->run(0, $count);
    $start = time;
    kill CONT => $pid;
    until_taken($now, $before, $count);
    return { live => $live, behind => $count / (time - $start),
             cost => (Bench::cpu_of($pid) - $cpu) / $count };
}

sub intake {
    $redis->cmd(CONFIG => 'SET', 'client-output-buffer-limit', 'pubsub 0 0 0');
    my $ngx = nginx(<<'H', 'location = /status { rt_status json; }
        rt_hub pub { zone 64m; redis %%REDIS%%; subscribe ir*;
                     redis_timeout 5s 60s; }
        rt_hub str { zone 64m; redis %%REDIS%%; source stream;
                     redis_timeout 5s 60s; }
H
        location ~ ^/str/(?<channel>\w+)$ { rt_subscribe str $channel; }');
    my $pid = worker($ngx);
    my @bare = (Bench::bare($redis, pattern => 'ib*'),
                Bench::bare($redis, stream => 'sb%u', streams => 10));
    my $count_of = sub ($server) {
        return sub { get($server->{port}, '/count')->body + 0 } };

    # a stream is followed when somebody asks
    get($ngx, "/str/sr$_") for 0 .. 9;
    my %of = (
        'PSUBSCRIBE' => [$size->{intake}, { bare => [$bare[0], 'ib%u'],
            ngx_rt => ['pub', 'ir%u'] }, channels => 100],
        'XREAD' => [$size->{stream}, { bare => [$bare[1], 'sb%u'],
            ngx_rt => ['str', 'sr%u'] }, channels => 10, xadd => 1],
    );
    my $i = 0;
    for my $kind (sort keys %of) {
        my ($count, $who, @args) = @{$of{$kind}};
        my %subs;
        for my $name (keys %$who) {
            my ($server, $channel) = @{$who->{$name}};
            my $load = Bench::Load->new('fan', redis => $redis->port,
                clients => 0, name => $channel, @args);
            my $now = ref $server ? $count_of->($server)
                : sub { hub($ngx, $server)->{messages}{in} };
            # the first is on its way when the feed is live
            my $before = $now->();
            RT::poll_until(sub { $load->run(0, 10); $now->() - $before > 0 },
                           10) // die "$kind, $name: nothing arrives\n";
            my $last = -1;
            RT::poll_until(sub { my $is = $now->(); my $same = $is == $last;
                                 $last = $is; return $same }, 5);
            $subs{$name} = sub {
                my $r = taken(ref $server ? $server->{pid} : $pid, $load,
                              $count, $now);
                $redis->cmd(XTRIM => "$1$_", 'MAXLEN', 100)
                    for $kind eq 'XREAD' && $channel =~ /^(\w+)%/ ? 0 .. 9 : ();
                return $r;
            };
        }
        my %values = Bench::rounds($rounds,
            told("intake: $kind", $i / 2, $i / 2 + 0.5), %subs);
        for (['live', 'messages/s', 0.8, 'as published'],
             ['behind', 'messages/s', 0.8, 'from behind'],
             ['cost', 'us per message', undef, 'CPU from behind'])
        {
            my ($field, $unit, $target, $label) = @$_;
            Report::row(part => 'intake', unit => $unit, target => $target,
                label => "$kind, $label", more => $field ne 'cost',
                values => { map { my $name = $_; ($name =>
                    [map { $_->{$field} } @{$values{$name}}]) }
                    keys %values });
        }
        $i++;
    }
    my @gaps = map { hub($ngx, $_)->{feed}{gaps} } qw(pub str);
    "@gaps" eq '0 0' or die "gaps: @gaps\n";
    Bench::end(@bare);
    $ngx->stop;
}


# 6. connections opened, asked, answered and cut

sub connects {
    my $bare = Bench::bare($redis);
    my $ngx = ours();
    my $peer = $nchan ? theirs() : undef;
    my @sse = (accept => 'text/event-stream');
    get($ngx, '/sse/k1');
    channels_live('k1', 1);
    $redis->publish(k1 => 'x' x 200);
    my $etag = RT::wait_for { get($ngx, '/sse/k1')->status == 200
        && get($ngx, '/sse/k1')->header('ETag') } 5, 'an ETag';
    my $cursor = $etag =~ s/^W\/|"//gr;

    my %ask = (
        nginx  => [$ngx->port, worker($ngx), path => '/small'],
        plain  => [$ngx->port, worker($ngx), path => '/sse/k1', @sse,
                   until => 'retry:'],
        cursor => [$ngx->port, worker($ngx), @sse, until => 'retry:',
                   path => "/sse/k1?last_event_id=$cursor"],
        bare   => [$bare->{port}, $bare->{pid}, @sse, path => '/sse/k1',
                   until => 'retry:'],
        $peer ? (Nchan => [$peer->port, worker($peer), path => '/sse/k1',
                           @sse]) : (),
    );
    my %subs;
    for my $name (keys %ask) {
        my ($port, $pid, @args) = @{$ask{$name}};
        my $load = Bench::Load->new(connect => port => $port, @args);
        $subs{$name} = sub { scalar cost($pid, $load, 0,
                                    $size->{connects}) };
    }
    my %v = Bench::rounds($rounds, told('connects', 0, 1), %subs);
    for (['plain', 'without cursor'], ['cursor', 'with cursor']) {
        Report::row(part => 'connects', unit => 'us per connection',
            label => "SSE $_->[1]", target => 1.05, floor => 'keep-alive',
            values => { ngx_rt => $v{$_->[0]}, 'keep-alive' => $v{nginx},
                map { $v{$_} ? ($_ => $v{$_}) : () } qw(bare Nchan) });
    }
    Bench::end($bare);
    $_->stop for grep { defined } $ngx, $peer;
}


# all of it

need(qw(redis-server taskset));
# what ends cleanly is only worth a line when it does not
open my $tap, '>', dir() . '/tap' or die;
Test::More->builder->output($tap);
$Bench::out = root() . '/build/bench';
Bench::pin();

say Report::machine(RT::Nginx::binary(), %Bench::cpu);
say 'Nchan is not here (libnginx-mod-nchan): skipped' if !$nchan;
$redis = RT::Redis->new;
for (@parts) {
    my ($name, $sub, $expected) = @$_;
    $current = $expected;
    $sub->();
    $done += $expected;
}
$redis->stop;
RT::stop_all();
is(Test::More->builder->is_passing ? 1 : 0, 1, 'all ended cleanly');

Report::write("$opt{out}/bench.json", "$opt{out}/bench.svg",
    size => $opt{size}, rounds => $rounds, seconds => time - $started);
say "\n", Report::table();
say sprintf "%d s; %s/bench.json, %s/bench.svg", time - $started, $opt{out},
    $opt{out};
done_testing;
