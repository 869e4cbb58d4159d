# Many streams, many messages: each once, in order; and memory stays.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use RT;
use RT::Swarm;

my $streams = asan() ? 200 : 1000;
my $channels = $streams / 2;
my $each = 20;

my $redis = RT::Redis->new;

for my $workers (4, 32) {
    my $ngx = RT::Nginx->new(redis => $redis, workers => $workers,
        events => 'worker_connections 2048;',
        http => 'rt_hub app { zone 32m; redis %%REDIS%%; }',
        server => 'location ~ ^/rt/(?<channel>\w+)$ {
                       rt_subscribe app $channel; }');

    my $swarm = RT::Swarm->new($ngx,
        headers => [Accept => 'text/event-stream']);
    $swarm->open(map { '/rt/c' . $_ % $channels } 0 .. $streams - 1);
    wait_ok { @{$redis->cmd(PUBSUB => 'CHANNELS', 'c*')} == $channels } 20,
        "$streams streams, $workers workers: each channel subscribed once";
    is($redis->clients, 1, 'over one connection');

    my $sent = 0;
    $swarm->run(sub {
        for (1 .. 200) {
            last if $sent == $channels * $each;
            $redis->publish('c' . $sent % $channels,
                            int($sent / $channels));
            $sent++;
        }
        return $swarm->count >= $streams * $each;
    }, 120, 'all messages to all');

    my $expected = join ' ', 0 .. $each - 1;
    my @data = map { $swarm->data($_) } 0 .. $streams - 1;
    is(scalar(grep { "@$_" ne $expected } @data), 0,
        'each exactly once and in order');
    is(scalar(map { @{$swarm->gaps($_)} } 0 .. $streams - 1), 0, 'no gap');
    $swarm->close;
    $ngx->stop(20);
}

# one stream, 100,000 messages

SKIP: {
    skip('a sanitizer keeps what was freed', 3) if asan();

    my $ngx = RT::Nginx->new(redis => $redis, workers => 1,
        http => 'rt_hub app { zone 8m; redis %%REDIS%%; }',
        server => 'location ~ ^/rt/(?<channel>\w+)$ {
                       rt_subscribe app $channel; rt_heartbeat 100ms; }');
    my $sse = RT::SSE->new($ngx, '/rt/one',
        headers => [Accept => 'text/event-stream']);
    wait_for { $sse->wait(0, 0.1); defined $sse->last_id } 5, 'a place';

    my ($worker) = $ngx->workers;
    my ($sent, $wrong, $rss) = (0, 0);
    while ($sent < 101_000) {
        $redis->cmd('MULTI');
        $redis->cmd(PUBLISH => 'one', $sent + $_) for 0 .. 99;
        $redis->cmd('EXEC');
        my @got = $sse->wait(100, 10);
        $wrong++ if "@{[map { $_->{data} } @got]}"
                    ne "@{[$sent .. $sent + 99]}";
        $sent += 100;
        $rss = $ngx->rss($worker) if $sent == 1_000;
    }
    is($wrong, 0, '100,000 messages on one stream, in order');

    my $moved = $ngx->rss($worker) - $rss;
    ok($moved < 200, "they move the worker's memory by $moved KB");

    # heartbeats: 15 s apart there are 5,760 in a day; here 50
    $rss = $ngx->rss($worker);
    $sse->wait_comment for 1 .. 50;
    $moved = $ngx->rss($worker) - $rss;
    ok($moved < 200, "50 heartbeats move it by $moved KB");
}

done_testing;
