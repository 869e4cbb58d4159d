# Two nginx and one Redis: a cursor of one is a cursor of the other.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use Time::HiRes qw(time);
use RT;

my $redis = RT::Redis->new;
my @node = map { RT::Nginx->new(redis => $redis, workers => 2,
    http => 'rt_hub app { redis %%REDIS%%; source stream; history 20; }',
    server => <<'END') } 1 .. 2;
    rt_retry 10ms;
    location ~ ^/rt/(?<channel>.+)$ { rt_subscribe app $channel; }
END

sub add ($channel, $n) { $redis->cmd(XADD => $channel, '*', data => $n) }

# A client that goes to the other node after every message.  It has to get
# each number of each of its channels once.
sub mover ($path, @channels) {
    return { path => $path, next => { map { $_ => 1 } @channels }, at => 0,
             moves => 0, bad => [], last => undef };
}

sub turn ($c) {
    my $sse = $c->{sse} //= RT::SSE->new($node[$c->{at}], $c->{path},
        last => $c->{last}, wait_head => 0);
    my $e = $sse->event(0) or return;
    $c->{last} = $e->{id};
    if ($e->{event} eq 'rt.gap') {
        push @{$c->{bad}}, "a gap: $e->{data}";
    } else {
        my ($channel, $n) = split / /, $e->{data};
        my $want = $c->{next}{$channel}++;
        push @{$c->{bad}}, "$e->{data}, not $want" if $n != $want;
        $c->{next}{$channel} = $n + 1;
    }
    $sse->close;
    delete $c->{sse};
    $c->{at} = 1 - $c->{at};
    $c->{moves}++;
}

subtest 'a client that moves after every message' => sub {
    my @channels = map { "move:$_" } 1 .. 4;
    my %sent = map { $_ => 0 } @channels;
    my @movers = ((map { mover("/rt/$_", $_) } @channels),
        mover('/rt/move:1,move:2', @channels[0, 1]),
        (map { mover('/rt/' . join(',', @channels), @channels) } 1 .. 2));
    # all have a place before the first message
    for my $c (@movers) {
        $c->{sse} = RT::SSE->new($node[0], $c->{path});
        wait_for { RT::SSE::pump(0.01, $c->{sse});
            ($c->{sse}->last_id // '') ne '' } 5, 'a place';
        $c->{last} = $c->{sse}->last_id;
    }
    my $end = time + RT::scale(6);
    my $n = 0;
    my $start = time;
    while (time < $start + 4) {
        while ($n < (time - $start) * 60) {
            my $channel = $channels[$n++ % 4];
            my $number = ++$sent{$channel};
            $redis->cmd(XADD => $channel, '*', data => "$channel $number");
        }
        RT::SSE::pump(0.002, grep { $_ } map { $_->{sse} } @movers);
        turn($_) for @movers;
    }
    # to the very end
    my $left = sub { grep { my $c = $_;
        grep { $c->{next}{$_} <= $sent{$_} } keys %{$c->{next}} } @movers };
    $end = time + RT::scale(60);
    while ($left->() && time < $end) {
        RT::SSE::pump(0.002, grep { $_ } map { $_->{sse} } @movers);
        turn($_) for @movers;
    }
    is(scalar(() = $left->()), 0, 'all have all');
    for my $c (@movers) {
        is_deeply($c->{bad}, [], "$c->{path}: $c->{moves} moves, each message "
            . 'once and in order, no gap');
    }
    $_->{sse} && $_->{sse}->close for @movers;
};

subtest 'polls' => sub {
    get($_, '/rt/poll') for @node;
    add('poll', 'one');
    my @r = map { my $node = $_; wait_for { my $r = get($node, '/rt/poll');
        $r->status == 200 && $r } 5, 'known' } @node;
    is($r[0]->body, 'one', 'the same body');
    is($r[1]->body, 'one', 'on both');
    is($r[0]->header('ETag'), $r[1]->header('ETag'), 'and the same ETag');
    is(get($node[$_], '/rt/poll', headers => ['If-None-Match',
        $r[1 - $_]->header('ETag')])->status, 304,
        "node $_: 304 for the other's") for 0, 1;
    is(get($node[0], '/rt/poll,more', headers => ['If-None-Match',
        $r[1]->header('ETag')])->status, 200, 'not for other channels');
    my @set = map { get($_, '/rt/poll,more')->header('ETag') } @node;
    is($set[0], $set[1], 'the ETag of several is the same, too');
    is(get($node[1], '/rt/poll,more', headers => ['If-None-Match', $set[0]])
        ->status, 304, 'and 304');
    isnt(get($node[1], '/rt/more,poll')->header('ETag'), $set[0],
        'but not in another order');

    # a page that polls first and opens a stream from what it got
    add('poll', 'two');
    my $sse = RT::SSE->new($node[1], '/rt/poll',
        last => $r[0]->header('ETag') =~ s/"//gr);
    $sse->expect('two');
    $sse->close;
};

subtest 'a node that comes later' => sub {
    add('late', $_) for 1 .. 50;
    my $sse = RT::SSE->new($node[0], '/rt/late');
    $sse->expect('50');
    my $id = $sse->last_id;
    $sse->close;
    add('late', $_) for 51 .. 120;
    # its history is 20: the rest is asked of Redis
    $sse = RT::SSE->new($node[1], '/rt/late', last => $id);
    $sse->expect(51 .. 120);
    $sse->close;
};

done_testing;
