# Streams over a network that fails: a reply that is cut at any byte, by RST,
# and a connection that hears nothing any more.  Nothing is lost, repeated or
# told as a gap.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json);
use RT;
use RT::Proxy;

my $redis = RT::Redis->new;
my $proxy = RT::Proxy->new($redis->port);
my $ngx = RT::Nginx->new(workers => 2, vars => { PROXY => $proxy->url },
    http => <<'END', server => <<'END2');
    rt_hub app { redis %%PROXY%%; redis_timeout 500ms 600ms;
                 redis_reconnect 10ms 30ms; source stream; history 500; }
END
    location ~ ^/rt/(?<channel>.+)$ { rt_subscribe app $channel; }
    location = /status { rt_status json; }
END2

my @channels = map { "cut:$_" } 1 .. 4;
my @paths = (@channels, "$channels[0],$channels[1]", join ',', @channels);
my @sse = map { RT::SSE->new($ngx, "/rt/$_") } @paths;
wait_for { RT::SSE::pump(0.01, @sse);
    !grep { ($_->last_id // '') eq '' } @sse } 5, 'all have a place';

my %sent = map { $_ => 0 } @channels;
my @got = map { {} } @sse;      # channel => the number seen last
my @bad;

sub add ($times) {
    for (1 .. $times) {
        $redis->cmd(XADD => $_, '*', data => "$_ " . ++$sent{$_})
            for @channels;
    }
}

sub take {
    RT::SSE::pump(0.005, @sse);
    for my $i (0 .. $#sse) {
        while (my $e = shift @{$sse[$i]{events}}) {
            if ($e->{event} eq 'rt.gap') {
                push @bad, "$paths[$i]: a gap, $e->{data}";
                next;
            }
            my ($channel, $n) = split / /, $e->{data};
            my $want = ($got[$i]{$channel} // 0) + 1;
            push @bad, "$paths[$i]: $e->{data}, not $want" if $n != $want;
            $got[$i]{$channel} = $n;
        }
    }
}

sub all_have {
    take();
    for my $i (0 .. $#sse) {
        for my $channel (split /,/, $paths[$i]) {
            return 0 if ($got[$i]{$channel} // 0) != $sent{$channel};
        }
    }
    return 1;
}

# the first bytes are of a login, then come answers to XRANGE and XREAD
my @at = (0 .. 9, map({ 10 + 13 * $_ } 0 .. 25), map { 400 + 170 * $_ } 0 .. 9);
my $rounds = 0;
for my $at (@at) {
    $proxy->cut($at);
    add(2);
    take();
    $proxy->flow;
    add(1);
    last if !wait_for { all_have() } 10, "after $at bytes";
    $rounds++;
}
is($rounds, scalar @at, "cut after 0 to $at[-1] bytes, in $rounds ways");

for my $round (1 .. 2) {
    $proxy->freeze;
    add(3);
    take();
    # until nginx has given up on what hears nothing
    $ngx->mark;
    wait_for { take(); $ngx->log(qr/no answer in time|lost Redis/) } 5,
        'noticed';
    $proxy->flow;
    add(1);
    wait_ok { all_have() } 10, "half-open $round: all arrives";
}

my $feed = decode_json(get($ngx, '/status')->body)->{hubs}[0]{feed};
cmp_ok($feed->{reconnects}, '>', 20, "$feed->{reconnects} times anew");
is($feed->{gaps}, 0, 'the feed had no gap');
is(scalar @bad, 0, 'each message once and in order, no gap') or
    diag(join "\n", splice @bad, 0, 10);
is(scalar(grep { $_->{eof} } @sse), 0, 'and no stream has ended');
$_->close for @sse;

done_testing;
