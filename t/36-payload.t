# Any bytes in: byte-exact in a poll, by the rules of SSE in a stream.
#
# The streams are parsed here, after the HTML standard's text and apart from
# RT::SSE, from the whole body at once.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP;
use MIME::Base64 qw(decode_base64);
use RT;

my $redis = RT::Redis->new;
my $ngx = RT::Nginx->new(redis => $redis, workers => 2, http => <<'END',
    rt_hub mem { zone 16m; }
    rt_hub raw { zone 16m; redis %%REDIS%%; }
    rt_hub env { zone 16m; redis %%REDIS%%; payload json; prefix env:; }
    client_max_body_size 1m;
    client_body_buffer_size 16k;
END
    server => <<'END');
    default_type application/octet-stream;
    location ~ ^/mem/(?<channel>.+)$ { rt_subscribe mem $channel; }
    location ~ ^/raw/(?<channel>.+)$ { rt_subscribe raw $channel; }
    location ~ ^/env/(?<channel>.+)$ { rt_subscribe env $channel; }
    location ~ ^/event/(?<channel>.+)$ {
        rt_event channel; rt_subscribe mem $channel;
    }
    location ~ ^/pub/mem/(?<channel>.+)$ { rt_publish mem $channel; }
    location ~ ^/pub/raw/(?<channel>.+)$ { rt_publish raw $channel; }
    location ~ ^/pub/env/(?<channel>.+)$ { rt_publish env $channel; }
END

# HTML standard, 9.2.5 and 9.2.6, over a whole stream
sub parse ($bytes) {
    $bytes =~ s/\A\xef\xbb\xbf//;
    my @lines = split /\r\n|\r|\n/, $bytes, -1;
    pop @lines;                     # what no end of line ends
    my ($data, $type, $id, $any, @events) = ('', '', '', 0);
    for my $line (@lines) {
        if ($line eq '') {
            push @events, { id => $id, data => $data =~ s/\n\z//r,
                event => $type eq '' ? 'message' : $type } if $any;
            ($data, $type, $any) = ('', '', 0);
            next;
        }
        my $colon = index $line, ':';
        next if $colon == 0;
        my ($name, $value) = $colon < 0 ? ($line, '')
            : (substr($line, 0, $colon), substr($line, $colon + 1));
        $value =~ s/\A //;
        if ($name eq 'data') { $data .= "$value\n"; $any = 1 }
        elsif ($name eq 'event') { $type = $value }
        elsif ($name eq 'id') { $id = $value if $value !~ /\0/ }
        elsif ($name ne 'retry') { die "field: $name\n" }
    }
    return @events;
}

sub escape ($text) { $text =~ s/([^\w.~-])/sprintf '%%%02X', ord $1/ger }

# a stream that has its place, and its events from then on
sub stream ($path) {
    my $s = RT::SSE->new($ngx, $path);
    wait_for { RT::SSE::pump(0.1, $s); $s->last_id } 5, "a place on $path";
    return $s;
}

sub events ($sse, $n) {
    $sse->wait($n);
    return parse($sse->raw);
}

my %payload = (
    empty => '', CR => "\r", LF => "\n", CRLF => "\r\n", 'two LF' => "\n\n",
    LFCR => "\n\r", 'CR CRLF' => "\r\r\n", 'trailing LF' => "a\n",
    'trailing CR' => "a\r", 'trailing CRLF' => "a\r\n",
    'leading LF' => "\na", mixed => "a\rb\nc\r\nd\n\re\n\n\nf",
    NUL => "a\0b", 'NUL alone' => "\0", BOM => "\xef\xbb\xbfa",
    'BOM alone' => "\xef\xbb\xbf", UTF16 => "\xff\xfea\0", space => ' ',
    'leading space' => "  a", tab => "\ta", colon => ':', comment => ": x",
    control => join('', map { chr } 1 .. 31, 127),
    all => join('', map { chr } 0 .. 255),
    'invalid UTF-8' => "\xc3(\xe2\x82\xf0\x9f", surrogate => "\xed\xa0\x80",
    overlong => "\xc0\xaf", emoji => "\xf0\x9f\x98\x80",
    'U+2028' => "\xe2\x80\xa8",
    NEL => "\xc2\x85", 'NEL byte' => "\x85", quote => '"\\/\\u0041',
    inject => "data: x\n\nid: 5\nevent: rt.gap\n\n",
    'inject CR' => "x\rid: 9\r\rdata: y\r\r",
    'inject retry' => "\nretry: 1\n\n",
    'chunk' => "0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", envelope => '{"data":"x"}',
    big => 'x' x 200_000, 'big lines' => "0123456789\n" x 18_000,
    'big binary' => join('', map { chr($_ * 7 % 256) } 1 .. 200_000),
);

# what a stream makes of the ends of lines
sub as_sse ($data) { $data =~ s/\r\n|\r/\n/gr }

for my $way (qw(mem raw:redis raw:post env:redis env:post)) {
    my ($hub, $by) = split /:/, "$way:post";
    my $channel = "all-$by";
    my $s = stream("/$hub/$channel");
    $redis->wait_sub($hub eq 'env' ? "env:$channel" : $channel)
        if $hub ne 'mem';
    my (@want, @ids);
    for my $name (sort keys %payload) {
        my $data = $payload{$name};
        my $text = $data;
        my $utf8 = utf8::decode($text);
        $utf8 = 0 if $name eq 'surrogate';
        my $status = 202;
        if ($by eq 'redis' && $hub eq 'raw') {
            $redis->publish($channel, $data);
        } elsif ($by eq 'redis') {
            next if !$utf8;
            $redis->publish("env:$channel",
                JSON::PP->new->utf8->encode({ data => $text }));
        } else {
            $status = post($ngx, "/pub/$hub/$channel", $data)->status;
        }
        if ($hub eq 'env' && !$utf8) {
            is($status, 400, "$way: $name does not travel in JSON");
            next;
        }
        is($status, 202, "$way: $name is taken");
        push @want, [$name, as_sse($data)];

        my $event = $s->event;      # then it is in the zone
        ok(defined $event, 'it arrives');
        my $r = get($ngx, "/$hub/$channel");
        is($r->status, 200, 'a poll');
        ok($r->body eq $data, 'byte by byte');
        is($r->header('Content-Length'), length $data, 'Content-Length');
        is($r->header('ETag'), qq("$event->{id}"), "the stream's id");
        is(get($ngx, "/$hub/$channel", headers => [
            'If-None-Match' => qq("$event->{id}")])->status, 304, 'is current');
        push @ids, $event->{id};
    }
    my @got = parse($s->raw);
    is(scalar @got, scalar @want, "$way: as many events as messages");
    for my $n (0 .. $#want) {
        ok(($got[$n]{data} // '') eq $want[$n][1], "$way: $want[$n][0]");
        is($got[$n]{event}, 'message', 'no name');
        is($got[$n]{id}, $ids[$n], 'its id');
    }
    unlike($s->raw, qr/^retry: .*^retry: /ms, 'retry once');
    $s->close;

    # resumed from the history they are the same
    my $again = RT::SSE->new($ngx, "/$hub/$channel", last => $ids[0]);
    my @old = events($again, $#want);
    is(join(',', map { length $_->{data} } @old),
        join(',', map { length $_->[1] } @want[1 .. $#want]),
        "$way: the same from the history");
    is(scalar(grep { $old[$_]{data} ne $want[$_ + 1][1] } 0 .. $#old), 0,
        'byte by byte');
    $again->close;
}

# several channels: JSON

my $json = JSON::PP->new->utf8;
my @names = ('plain', 'a:b/c', '"q\\', "\xc3\xa9", "\xf0\x9f\x98\x80",
    "\xff\xfe", '<b>&', '%41');
my $multi = '/mem/' . join ',', map { escape($_) } @names;
for my $name (sort keys %payload) {
    my $data = $payload{$name};
    post($ngx, '/pub/mem/' . escape($_), $data) for @names;
    my $r = get($ngx, $multi);
    is($r->header('Content-Type'), 'application/json', "JSON: $name");
    is($r->header('Content-Length'), length $r->body, 'Content-Length');
    my $list = eval { $json->decode($r->body) };
    is(ref $list, 'ARRAY', "decodes $@");
    is(scalar @$list, scalar @names, 'all channels');
    my ($bad, $channels) = (0, 0);
    for my $n (0 .. $#names) {
        my $item = $list->[$n];
        my $text = $names[$n];
        my $ok = utf8::decode($text);
        $channels++ if $ok ? $item->{channel} eq $text
                           : $item->{channel} =~ /\x{fffd}/;
        my $bytes = $item->{data};
        if (($item->{encoding} // '') eq 'base64') {
            $bytes = decode_base64($bytes);
            my $t = $data;
            $bad++ if utf8::decode($t) && $name ne 'surrogate';
        } else {
            utf8::encode($bytes);
        }
        $bad++ if $bytes ne $data || defined $item->{event};
    }
    is($bad, 0, 'data byte by byte, base64 only where it must be');
    is($channels, scalar @names, 'in the order of the messages, by name');
    is_deeply([sort keys %{$list->[0]}], [grep { $_ ne 'encoding'
        || exists $list->[0]{encoding} } qw(channel data encoding event id)],
        'the fields');
}

# event names

my $named = stream('/mem/named');
my $envn = stream('/env/named');
$redis->wait_sub('env:named');
for my $case (['paid', 202], ['message', 202], ['a b', 202], [': x', 202],
    ["\xc3\xa9", 202], ["\xff", 202], ['"q\\', 202], ['data: x', 202],
    ['x' x 255, 202], ['x' x 256, 400], ['rt.gap', 400], ['rt.', 400],
    ['rt', 202], ['RT.gap', 202])
{
    my ($name, $status) = @$case;
    my $what = length $name > 20 ? length($name) . ' bytes' : $name;
    is(post($ngx, '/pub/mem/named', "d:$name", headers => [
        'RT-Event' => $name])->status, $status, "event name $what");
    next if $status != 202;
    $named->event;
    my @all = parse($named->raw);
    is($all[-1]{event}, $name, 'arrives');
    is($all[-1]{data}, "d:$name", 'with its data');
    my ($item) = grep { $_->{channel} eq 'named' }
        @{$json->decode(get($ngx, '/mem/named,plain')->body)};
    my $text = $name;
    is($item->{event}, $text, 'in JSON') if utf8::decode($text);
}
for my $name ("a\nid: 5", "a\rb", "a\0b", 'rt.gap', '') {
    $redis->publish('env:named', $json->encode({ data => 'evil',
        event => $name }));
}
$redis->publish('env:named', $json->encode({ data => 'good', event => 'ok' }));
wait_for { grep { $_->{data} eq 'good' } $envn->event } 5, 'the good one';
my @env = parse($envn->raw);
is(scalar(grep { $_->{data} eq 'evil' && $_->{event} ne 'message' } @env), 0,
    'a bad name from Redis is not told');
is(scalar(grep { $_->{id} eq '5' } @env), 0, 'and injects nothing');
$_->close for $named, $envn;

# rt_event channel, strange names

for my $name (@names, 'event:x', "a\xa0b", "data:\xe2\x80\xa8", 'x' x 255) {
    my $path = escape($name);
    my $s = stream("/event/$path");
    post($ngx, "/pub/mem/$path", 'under its name',
        headers => ['RT-Event' => 'another']);
    wait_for { grep { $_->{data} eq 'under its name' } $s->event } 5, 'it';
    my @all = parse($s->raw);
    is($all[-1]{event}, $name, 'rt_event channel');
    is($all[-1]{data}, 'under its name', 'with its data');
    $s->close;
}

# a gap names its channel, whatever that is

for my $name ('"q\\', "\xff", "\xc3\xa9") {
    my $s = RT::SSE->new($ngx, '/mem/' . escape($name), last => 'junk');
    $s->event;
    my ($gap) = parse($s->raw);
    is($gap->{event}, 'rt.gap', 'a gap');
    my $data = $json->decode($gap->{data});
    my $text = $name;
    is($data->{channel}, $text, 'of this channel') if utf8::decode($text);
    is($data->{reason}, 'unknown cursor', 'with its reason');
    $s->close;
}

done_testing;
