# `source stream`: many streams, all followed and none late, while newcomers
# come.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json);
use RT;
use Time::HiRes qw(time);

my $many = $ENV{RT_SLOW} ? 10_000 : asan() ? 300 : 1_000;
my $old = $many / 2;            # are there when they are asked for
my $clients = 50;

my $redis = RT::Redis->new;
my $ngx = RT::Nginx->new(redis => $redis, workers => 2, http => <<'END',
    rt_hub app { zone 64m; redis %%REDIS%%; source stream; }
    keepalive_requests 1000000;
END
    server => <<'END');
    location ~ ^/rt/(?<channel>\w+)$ { rt_subscribe app $channel; }
    location = /status { rt_status json; }
END

sub hub { return decode_json(get($ngx, '/status')->body)->{hubs}[0] }

# many polls over one connection, their responses
sub polls (@paths) {
    my $http = RT::HTTP->new($ngx, timeout => 30);
    my @r;
    while (my @part = splice @paths, 0, 100) {
        $http->send(GET => $_) for @part;
        push @r, map { $http->read } @part;
    }
    return @r;
}

sub add (@channels) {
    while (my @part = splice @channels, 0, 500) {
        $redis->pipeline(map { [XADD => "c$_", '*', data => "c$_"] } @part);
    }
}

add(0 .. $old - 1);

# clients that get messages all the time

my $swarm = RT::Swarm->new($ngx);
$swarm->open(map { "/rt/live$_" } 0 .. $clients - 1);
wait_for { !grep { !defined $_->header('ETag') }
           polls(map { "/rt/live$_" } 0 .. $clients - 1) } 5, 'all are followed';
my $sent = 0;
sub tick {
    $sent++;
    $redis->pipeline(map { [XADD => "live$_", '*', data => $sent] }
        0 .. $clients - 1);
    $swarm->pump(0.001);
}
tick() for 1 .. 5;

# newcomers

my $start = time;
my $late = 0;
for my $part (0 .. $many / 100 - 1) {
    polls(map { "/rt/c$_" } $part * 100 .. $part * 100 + 99);
    tick();
}
my @left = 0 .. $many - 1;
my $end = time + RT::scale(30);
while (@left && time < $end) {
    my @r = polls(map { "/rt/c$_" } @left);
    @left = map { $left[$_] } grep {
        $r[$_]->status != ($left[$_] < $old ? 200 : 204)
            || !$r[$_]->header('ETag') } 0 .. $#r;
    tick();
}
is(scalar @left, 0, sprintf '%d streams are followed within %.2f s', $many,
    time - $start);
my $readers = grep { $_->{cmd} eq 'xread' } $redis->clients;
cmp_ok($readers, '<=', 64, "by $readers readers");

# a message to each

$start = time;
add(0 .. $many - 1);
my $in = $old + $many + $clients * $sent;
$swarm->run(sub { hub()->{messages}{in} >= $in }, 20,
    'a message to each arrives');
is(hub()->{messages}{in}, $in, 'and no more than that');
my @r = polls(map { "/rt/c$_" } 0 .. $many - 1);
is(scalar(grep { $r[$_]->body ne "c$_" } 0 .. $many - 1), 0,
    'each where it belongs');

$swarm->run(sub { $swarm->count >= $clients * $sent }, 10,
    'those who were there all the time have all');
my $want = join ' ', 1 .. $sent;
is(scalar(grep { "@{$swarm->data($_)}" ne $want || @{$swarm->gaps($_)} }
    0 .. $clients - 1), 0, 'each once, in order, without a gap');

# all anew

my $before = hub()->{feed}{reconnects};
$redis->cmd(CLIENT => KILL => TYPE => 'normal', SKIPME => 'yes');
add(0 .. $many - 1);
$in += $many;
$swarm->run(sub { my $hub = hub();
    $hub->{feed}{reconnects} > $before && $hub->{messages}{in} >= $in }, 30,
    'all go on after a reconnect');
my $hub = hub();
is("$hub->{messages}{in} $hub->{feed}{gaps}", "$in 0", 'exactly, no gap');

$swarm->close;
is($ngx->log(qr/\[(?:error|warn)\]/), 1, 'one line, for the reconnect')
    or diag $ngx->log;

$ngx->stop;

# Redis lets in no more than some clients

$redis->cmd(CONFIG => SET => maxclients => 10);
$ngx = RT::Nginx->new(redis => $redis, workers => 1, http => <<'END',
    rt_hub app { zone 64m; redis %%REDIS%%; source stream; }
    keepalive_requests 1000000;
END
    server => <<'END');
    location ~ ^/rt/(?<channel>\w+)$ { rt_subscribe app $channel; }
    location = /status { rt_status json; }
END
polls(map { "/rt/c$_" } 0 .. $many - 1);
@left = 0 .. $many - 1;
wait_ok {
    my @r = polls(map { "/rt/c$_" } @left);
    @left = map { $left[$_] } grep { !$r[$_]->header('ETag') } 0 .. $#r;
    return !@left;
} 30, 'all are followed, by few readers';
$in = hub()->{messages}{in};
add(0 .. $many - 1);
wait_ok { hub()->{messages}{in} >= $in + $many } 20,
    'a message to each arrives';
$hub = hub();
is(join(' ', $hub->{messages}{in}, @{$hub->{feed}}{qw(gaps reconnects)}),
    join(' ', $in + $many, 0, 0), 'exactly, and over one connect');
is($ngx->log(qr/streams are read by at most \d connections, for no other/), 1,
    'the log tells why');
$ngx->stop;

# they are left when nobody asks

$ngx = RT::Nginx->new(redis => $redis, workers => 1, http => <<'END',
    rt_hub app { zone 8m; redis %%REDIS%%; source stream; inactive 1s; }
    keepalive_requests 1000000;
END
    server => <<'END');
    location ~ ^/rt/(?<channel>\w+)$ { rt_subscribe app $channel; }
    location = /status { rt_status json; }
END
sub readers { return scalar grep { $_->{cmd} eq 'xread' } $redis->clients }
polls(map { "/rt/c$_" } 0 .. 99);
wait_for { readers() == 2 } 5, '100 have two readers';
my $sse = RT::SSE->new($ngx, '/rt/c5');
is($sse->event->{data}, 'c5', 'a client of one of them');
wait_ok { hub()->{channels} == 1 && readers() == 1 } 15,
    'all others are forgotten, and a reader goes';
add(0 .. 99);
$sse->expect('c5');
polls('/rt/c7');
wait_ok { (polls('/rt/c7'))[0]->body eq 'c7' } 5, 'one comes back';
is(hub()->{feed}{gaps}, 0, 'without a gap');

done_testing;
