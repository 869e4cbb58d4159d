# rt_buffer and rt_slow: who reads is never slow, who doesn't is.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use RT;

my $redis = RT::Redis->new;
my $ngx = RT::Nginx->new(redis => $redis, workers => 1, http => <<'END',
    rt_hub app { zone 16m; redis %%REDIS%%; history 256; }
END
    server => <<'END');
    sendfile off;
    location ~ ^/close/(?<channel>\w+)$ {
        rt_subscribe app $channel;
        rt_buffer 4k; rt_heartbeat 10m;
    }
    location ~ ^/latest/(?<channel>\w+)$ {
        rt_subscribe app $channel;
        rt_buffer 4k; rt_slow latest; rt_heartbeat 10m;
    }
END
my @sse = (headers => [Accept => 'text/event-stream']);

# one transaction reaches the feeder in one read: a burst in one turn
sub burst ($channel, $first, $n, $size) {
    $redis->cmd('MULTI');
    $redis->cmd(PUBLISH => $channel, sprintf('%05d', $_) . 'x' x $size)
        for $first .. $first + $n - 1;
    $redis->cmd('EXEC');
}

sub number ($event) { return ($event->{data} // '') =~ /^(\d{5})/ ? $1 + 0 : -1 }

for my $slow ('close', 'latest') {
    my $c = RT::SSE->new($ngx, "/$slow/fast$slow", @sse);
    wait_for { $c->wait(0, 0.1); defined $c->last_id } 5, 'a place';
    wait_for { $redis->cmd(PUBSUB => 'NUMSUB', "fast$slow")->[1] == 1 } 5, 'heard';

    burst("fast$slow" => 0, 20, 1000);
    my @got = $c->wait(20, 5);
    is(join(' ', map { number($_) } @got), join(' ', 0 .. 19),
        "rt_slow $slow: a burst over rt_buffer reaches a client that reads");
    $c->close;
}

# clients that do not read, and one that does beside them

my $deaf = RT::SSE->new($ngx, '/close/deaf', @sse, rcvbuf => 4096);
my $lazy = RT::SSE->new($ngx, '/latest/deaf', @sse, rcvbuf => 4096);
my $good = RT::SSE->new($ngx, '/close/deaf', @sse);
wait_for { $_->wait(0, 0.1) for $deaf, $lazy, $good;
           3 == grep { defined $_->last_id } $deaf, $lazy, $good }
    5, 'places';

my ($sent, @seen) = (0);
while ($sent < 8000) {
    burst(deaf => $sent, 20, 1000);
    push @seen, $good->wait(20, 5);
    $sent += 20;
}
is(scalar @seen, $sent, 'the one that reads gets everything');
is(scalar(grep { number($seen[$_]) != $_ } 0 .. $#seen), 0, 'in order');

ok($deaf->ended(10), 'the one that does not is closed');

my @late;
RT::poll_until(sub { push @late, $lazy->wait(10_000, 0.2);
                     @late && number($late[-1]) == $sent - 1 }, 20);
is(number($late[-1]), $sent - 1, 'or skips to the newest message');
ok(@late < $sent, 'not having got them all');
ok((grep { $_->{event} eq 'rt.gap' } @late), 'and is told of a gap');
burst(deaf => $sent, 1, 10);
is(number(($lazy->wait(1, 5))[0] // {}), $sent, 'from there on it is live');

done_testing;
