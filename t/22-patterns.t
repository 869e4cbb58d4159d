# `subscribe` patterns: the table is warm from start, nothing comes twice.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json);
use RT;

my $server = <<'END';
    location ~ ^/rt/(?<channel>.+)$  { rt_subscribe app $channel; }
    location ~ ^/two/(?<channel>.+)$ { rt_subscribe two $channel; }
    location /status { rt_status json; }
END

sub hub ($ngx, $n = 0) {
    return decode_json(get($ngx, '/status')->body)->{hubs}[$n];
}

sub numpat ($redis) { return $redis->cmd(PUBSUB => 'NUMPAT') }

# the data of what comes until END
sub all ($sse) {
    my @data;
    while (my $e = $sse->event) {
        return @data if $e->{data} eq 'END';
        push @data, $e->{event} eq 'rt.gap' ? 'GAP' : $e->{data};
    }
    return (@data, 'NO END');
}

my $redis = RT::Redis->new;
my $ngx = RT::Nginx->new(redis => $redis, workers => 2,
    http => <<'END', server => $server);
    rt_hub app { redis %%REDIS%%; inactive 1s; redis_reconnect 20ms 100ms;
                 subscribe 'a:*' 'a:b*' '*:b?' 'h[^a]llo' 'e\*' '**x**'; }
    rt_hub two { redis %%REDIS%%; prefix 'p[*]:'; subscribe 'a*'; }
END
wait_ok { numpat($redis) == 7 } 5, 'subscribed from start';

# before anybody has asked
$redis->publish('a:warm' => 'old');
$redis->publish('a:warm' => 'news');
$redis->publish('cold' => 'news');
wait_ok { hub($ngx)->{messages}{in} == 2 } 2, 'messages are taken';
my $r = get($ngx, '/rt/a:warm');
is($r->status . $r->body, '200news', 'the table is warm');
is(get($ngx, '/rt/a:warm', headers => ['If-None-Match' => $r->header('ETag')])
    ->status, 304, 'and knows it');
is(get($ngx, '/rt/cold')->status, 204, 'what no pattern covers is not');

# what a pattern covers is not subscribed by name, and comes once, however
# many patterns match
my %sse = map { $_ => RT::SSE->new($ngx, "/rt/$_") }
    qw(a:1 a:b1 a:bb c:bb hello e* axb other);
my @plain = qw(cold other);
wait_ok { $redis->numsub('other') == 1 } 3, 'others are subscribed';
stays { "@{[sort @{$redis->cmd(PUBSUB => 'CHANNELS')}]}" eq 'cold other'
        || "@{$redis->cmd(PUBSUB => 'CHANNELS')}" eq 'other' } 0.5,
    'and no more than those';
for my $round (1 .. 3) {
    my %sum;
    for my $channel (sort keys %sse) {
        $redis->publish($channel => "$channel $_") for 1 .. 20;
        $redis->publish($channel => 'END');
    }
    for my $channel (sort keys %sse) {
        is_deeply([all($sse{$channel})],
            [$round > 1 ? 'GAP' : (), map { "$channel $_" } 1 .. 20],
            "round $round: $channel once and in order");
    }
    last if $round == 3;
    my $before = hub($ngx)->{feed}{reconnects};
    $redis->cmd(CLIENT => KILL => TYPE => 'pubsub');
    wait_for { hub($ngx)->{feed}{reconnects} > $before
               && hub($ngx)->{feed}{state} eq 'live'
               && numpat($redis) == 7 && $redis->numsub('other') == 1 } 3,
        'subscribed again';
}

# confirmed without a message and without a SUBSCRIBE: equal content is
# current, here and on another node
my $other = RT::Nginx->new(redis => $redis, http => <<'END', server => $server);
    rt_hub app { redis %%REDIS%%; subscribe 'a:*'; }
    rt_hub two { redis %%REDIS%%; }
END
wait_for { hub($other)->{feed}{state} eq 'live'
           && grep({ $_->{psub} == 1 } $redis->clients) == 2 } 3, 'two nodes';
$redis->publish('a:nodes' => 'same');
wait_for { hub($other)->{messages}{in} && get($ngx, '/rt/a:nodes')->body } 3,
    'there';
my $etag = get($ngx, '/rt/a:nodes')->header('ETag');
is(get($other, '/rt/a:nodes', headers => ['If-None-Match' => $etag])->status,
    304, 'the ETag of one node is good on another');
$other->stop;

# a prefix stands for itself
$redis->publish('p[*]:abc' => 'yes');
$redis->publish('p*:abc' => 'no');
$redis->publish('pX:abc' => 'no');
$redis->publish('abc' => 'no');
wait_ok { get($ngx, '/two/abc')->body eq 'yes' } 2, 'a prefix is no pattern';
is(hub($ngx, 1)->{messages}{in}, 1, 'and takes nothing else');
is($redis->numsub('p[*]:abc'), 0, 'a pattern behind a prefix covers');

# forgotten and known again, without a SUBSCRIBE
wait_ok { hub($ngx)->{channels} == 8 } 8, 'inactive ones are forgotten';
$redis->publish('a:warm' => 'later');
wait_ok { get($ngx, '/rt/a:warm')->body eq 'later' } 2, 'and known again';
is($redis->numsub('a:warm'), 0, 'by the pattern alone');

# as Redis matches: what one of our patterns says is what Redis delivers
my @names = map { my $n = $_; map { "$n$_" } '', 'b', 'b1', ':b1', 'x', '*' }
    qw(a: hello hallo e e* c q);
my $count = hub($ngx)->{messages}{in};
my $receivers = 0;
for my $name (@names) {
    $receivers++ if $redis->publish($name => 'm');
}
wait_ok { hub($ngx)->{messages}{in} == $count + $receivers } 3,
    "$receivers of " . @names . ' names match';
stays { hub($ngx)->{messages}{in} == $count + $receivers } 0.3, 'each once';

is(scalar($ngx->log(qr/\[(?:error|crit)\]/)), 2 * 2, 'two kills, two hubs');

done_testing;
