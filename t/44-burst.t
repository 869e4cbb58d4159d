# Many messages at once: read together, stored together, and yet each as if it
# had come alone, in the order in which Redis sent them.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json);
use RT;

# all of it waits in the socket when the worker goes on
sub burst ($ngx, $redis, @messages) {
    my ($pid) = $ngx->workers;
    RT::freeze($pid) or die "process $pid does not stop\n";
    $redis->pipeline(map { [PUBLISH => @$_] } @messages);
    kill CONT => $pid;
}

sub status ($ngx) { return decode_json(get($ngx, '/status')->body)->{hubs}[0] }

# what came, but for the retry
sub texts ($sse, $n) {
    return map { $_->{event} eq 'rt.gap'
        ? 'gap:' . decode_json($_->{data})->{channel} : $_->{data} }
        $sse->wait($n, 20);
}

my $server = <<'END';
    rt_buffer 16m;
    location ~ ^/rt/(?<channel>.+)$  { rt_subscribe app $channel; }
    location /status { rt_status json; }
END

my $redis = RT::Redis->new;
my $long = 'n' x 200;

subtest 'short and long, of several channels' => sub {
    my $ngx = RT::Nginx->new(redis => $redis, server => $server,
        http => 'rt_hub app { redis %%REDIS%%; zone 32m; history 2000;
                 prefix x:; }');
    my $sse = RT::SSE->new($ngx, "/rt/a,$long,b");
    $redis->wait_sub("x:$_") for 'a', $long, 'b';

    # around what is read at once, and around what fits a buffer
    my @sizes = (1 .. 40, (map { $_, 65_480 + $_ } 0 .. 20), 16_384, 65_536,
                 131_072, 200_000, 262_144, 262_145, 70_000, 5);
    my ($i, @messages, @expected) = 0;
    for my $size ((@sizes) x 2, map { 200 + $_ % 7 } 1 .. 700) {
        my $channel = ('a', $long, 'b', 'a')[$i++ % 4];
        my $text = substr "$i " . 'y' x $size, 0, $size;
        push @messages, ["x:$channel", $text];
        push @messages, [y => 'none of ours'] if $i % 50 == 0;
        push @expected, $size > 262_144 ? "gap:$channel" : $text;
    }

    burst($ngx, $redis, @messages);
    my @got = texts($sse, scalar @expected);
    my ($wrong) = grep { $got[$_] ne $expected[$_] } 0 .. $#expected;
    is($wrong, undef, 'each, in the order of all')
        or diag(substr($got[$wrong], 0, 60), ' instead of ',
                substr($expected[$wrong], 0, 60));
    my $s = status($ngx);
    is($s->{messages}{in}, @expected - 2, 'counted');
    is($s->{messages}{dropped}, 2, 'two were too large');
    is($s->{feed}{reconnects}, 0, 'over one connection');
    $sse->close;
    $ngx->stop;
};

subtest 'JSON, and what is none' => sub {
    my $ngx = RT::Nginx->new(redis => $redis, server => $server,
        http => 'rt_hub app { redis %%REDIS%%; zone 8m; history 2000;
                 payload json; }');
    my $sse = RT::SSE->new($ngx, '/rt/a,b');
    $redis->wait_sub($_) for qw(a b);

    my (@messages, @expected);
    for my $i (1 .. 1000) {
        my $channel = $i % 3 ? 'a' : 'b';
        my $data = $i % 7 ? "\\u0041\\n$i" . 'z' x ($i * 7 % 900) : $i;
        my $event = $i % 5 ? '' : qq(,"event":"e\\u0041$i");
        push @messages, [$channel, $i % 11
            ? sprintf('{"data":%s%s}', $i % 7 ? qq("$data") : $data, $event)
            : qq({"data":"$data)];
        push @expected, [$i % 7 ? "A\n" . substr($data, 8) : $data,
                         $event eq '' ? 'message' : "eA$i"] if $i % 11;
    }

    burst($ngx, $redis, @messages);
    my @got = map { [$_->{data}, $_->{event}] }
        $sse->wait(scalar @expected, 20);
    is_deeply(\@got, \@expected, 'each, with its event');
    is(status($ngx)->{messages}{dropped}, 90, 'what is no JSON is dropped');
    $ngx->allow(qr/dropped: /);
    $sse->close;
    $ngx->stop;
};

subtest 'channels that patterns bring' => sub {
    my $ngx = RT::Nginx->new(redis => $redis, server => $server,
        http => "rt_hub app { redis %%REDIS%%; zone 8m; subscribe p.* $long*;
                 subscribe *.1?; }");
    wait_ok { $redis->cmd(PUBSUB => 'NUMPAT') == 3 } 5, 'subscribed';
    my $sse = RT::SSE->new($ngx, "/rt/p.1,${long}1,p.299");
    is($sse->status, 200, 'a stream');
    RT::wait_for { status($ngx)->{channels} == 3 } 5, 'three channels';

    # each channel is new in the middle of the burst, some come twice
    my @names = map { ("p.$_", "$long$_") } 0 .. 299;
    my @messages = map { my $n = $_; map { [$_, "$_=$n"] } @names } 1 .. 3;
    burst($ngx, $redis, @messages);

    my @expected = map { my $n = $_; map { "$_=$n" } 'p.1', "${long}1",
                         'p.299' } 1 .. 3;
    is_deeply([texts($sse, 9)], \@expected, 'in the order of all');
    wait_ok { status($ngx)->{messages}{in} >= @messages } 10, 'all came';
    my $s = status($ngx);
    is($s->{messages}{in}, @messages, 'each once');
    is($s->{channels}, @names, 'each channel is there');
    is($s->{messages}{dropped}, 0, 'none is dropped');
    is(scalar(grep { get($ngx, "/rt/$_")->body ne "$_=3" } @names), 0,
       'each has its latest');
    $sse->close;
    $ngx->stop;
};

$redis->stop;
done_testing;
