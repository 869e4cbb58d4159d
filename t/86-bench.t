# The bench itself, at a size that says nothing about speed: it comes to its
# end, what it writes is whole, it sees a wrong and a lost message, and leaves
# nothing behind when it is interrupted.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib", "$FindBin::Bin/bench";
use RT;
use Bench;
use Capacity;
use Plot;
use Report;
use Servers;
use JSON::PP qw(decode_json);

plan(skip_all => 'measures nothing') if asan();
need(qw(redis-server taskset));

my $root = root();
my $make = "make -s --no-print-directory -C $root/t/bench BUILD=$root/build";
my $said = `$make 2>&1`;
is($?, 0, 'built') or diag($said);
$Bench::out = "$root/build/bench";

# (status, output)
sub bench ($name, @options) {
    my $log = dir() . "/$name.log";
    my $pid = RT::spawn([$^X, "$root/t/bench/bench.pl", 'size=smoke',
        'out=' . dir(), @options], out => $log);
    interrupt($pid, $log) if $name eq 'interrupted';
    my $ended = RT::poll_until(sub { !RT::running($pid) }, 90);
    my $status = $?;
    RT::kill_group($pid) if !$ended;
    return ($ended ? $status : 'hangs', slurp($log));
}


# all of it

my ($status, $text) = bench('all', 'also=the same:' . RT::Nginx::module());
is($status, 0, 'it ends well') or diag($text);
like($text, qr/^\[ +\d+ s, +\d+ s left\]  fan-out: 1 x 20, round 1 of 1$/m,
    'tells how far it is');

my $json = eval { decode_json(slurp(dir() . '/bench.json')) } // {};
my @rows = @{$json->{rows} // []};
my %parts = map { $_->{part} => 1 } @rows;
is_deeply([sort keys %parts],
    [sort qw(fan burst overload scale polls memory latency intake connects
             storm)],
    'bench.json: all parts');
for my $row (@rows) {
    my $what = "$row->{part}, $row->{label}";
    my %values = %{$row->{values}};
    is_deeply([grep { @{$values{$_}} != 1 || $values{$_}[0] !~ /^[\d.e+-]+$/ }
        keys %values], [], "$what: a number of each");
    # the memory of 50 streams may be no whole page; the kernel's is that of the
    # whole machine
    if ("$row->{label}" !~ /^kernel/) {
        cmp_ok($values{$_}[0], $row->{part} eq 'memory' ? '>=' : '>', 0,
            "$what: $_") for grep { $_ ne '' } $row->{floor}, 'ngx_rt';
    }
    if ($row->{floor} eq '') {
        like($text, qr/^  \Q$row->{label}\E +\d[\d.,]*$/m,
            "$what: of the table, with no floor");
        next;
    }
    my ($ratio, $least, $most) = @{$row->{ratio}{ngx_rt}};
    ok($least <= $ratio && $ratio <= $most, "$what: $ratio");
    like($text, qr/^  \Q$row->{label}\E .* \Q@{[sprintf '%.2f', $ratio]}\E /m,
        'which the table has');
}
my @peers = map { my $name = $_; (grep { /^\Q$name\E / } Servers::missing())
    ? () : $name } qw(Nchan Node);
is_deeply([grep { !exists $rows[0]{ratio}{$_} } @peers, 'the same'], [],
    "another build, and peers that are here: @peers");
like($text, qr/^What one edge node holds: .*\n  idle streams +[\d,]+  14 GB /m,
    'what a node holds, computed');
is(scalar @{$json->{holds} // []}, 7, 'from seven things');

my $svg = slurp(dir() . '/bench.svg');
my @open;
my $wrong = 0;
for my $tag ($svg =~ /<([^>]*)>/g) {
    if ($tag =~ m{^/(\w+)$})       { $wrong++ if (pop(@open) // '') ne $1 }
    elsif ($tag =~ m{^(\w+)[^<]*/$}s) { next }
    elsif ($tag =~ m{^(\w+)[^<]*$}s)  { push @open, $1 }
    else                           { $wrong++ }
}
is($wrong + @open, 0, 'bench.svg: what is opened is closed');
like($svg, qr{\A<svg xmlns="http://www.w3.org/2000/svg" width="\d+" },
    'an image of its own');
is_deeply([grep { $svg !~ />\Q$_->{label}\E<\/text>/ }
    grep { $_->{floor} ne '' } @rows], [], 'all rows with a ratio are in it');
unlike($svg, qr/="-?(?:nan|inf)/i, 'all have their place');
unlike($svg =~ s/<[^>]*>//gsr, qr/[<>]|&(?!amp;|lt;|gt;)/, 'text is text');

# rows by hand: the ratio is that of the rounds, not of the medians
Report::machine(RT::Nginx::binary(), %Bench::cpu);
Report::row(part => 'fan', label => 'a <b>', unit => 'us', target => 1.05,
    values => { bare => [1, 4, 4], ngx_rt => [1, 2, 8] },
    late => { bare => 0, ngx_rt => 2 });
Report::row(part => 'intake', label => 'more', unit => 'messages/s',
    target => 0.8, more => 1, values => { bare => [10], ngx_rt => [8] });
my $table = Report::table();
like($table, qr/a <b> +4\.00 +2\.00 +1\.00 \(0\.50-2\.00\) +<= 1\.05 /,
    'the median of ratios, their spread, the target reached');
like($table, qr/ late: ngx_rt 2$/m, 'who was late, and in how many rounds');
unlike($table, qr/late: .*bare/, 'and who was not');
like($table, qr/10\.0 +8\.00 +0\.80 \(0\.80-0\.80\) +>= 0\.8$/m,
    'where more is better');
Report::row(part => 'memory', label => 'too much', unit => 'KB per stream',
    limit => 1, values => { bare => [1], ngx_rt => [1.1] });
like(Report::table(), qr/too much .* <= 1 KB -$/m, 'one that is not reached');
my %failed;
is(Servers::try(\%failed, 'P', sub { die "lost some\n" }), 0, 'a peer fails');
is(Servers::try(\%failed, 'P', sub { 7 }), 0, 'and is left out from then on');
is(Servers::try(\%failed, 'Q', sub { 7 }), 7, 'no other one is');
Report::row(part => 'fan', label => 'failed', unit => 'us',
    fails => [sort keys %failed], values => { bare => [1], ngx_rt => [1] });
like(Report::table(), qr/  failed .* fails: P$/m, 'which the table has');
Report::row(part => 'scale', label => 'alone', unit => 'us', floor => '',
    values => { ngx_rt => [3, 1, 2] });
like(Report::table(), qr/  alone +2\.00$/m, 'one that has no floor');
like(Plot::svg(Report::machine(), Report::rows()), qr/>a &lt;b&gt;</,
    'a label of the plot is escaped');
is(Capacity::text(), '', 'of nothing nothing is computed');
my %is = (pss => 10, kernel => 4, 'fan one' => 8, storm => 20_000,
          intake => 0.5);
my %holds = map { $_->[0] => $_->[1] } Capacity::of(%is);
is($holds{'idle streams'}, 2 ** 20, 'a node: 14 GB in streams of 14 KB');
is($holds{'deliveries/s, one channel'}, 500_000, 'four cores, 8 us each');
is($holds{'messages/s from Redis'}, 1_000_000, 'the feeder');
like(Capacity::text(%is), qr/for all streams +13  1,048,576 \/ 80,000$/m,
    'seconds to come back, and how they were computed');


# what must not be overlooked

for (['corrupt=7', qr/sequence: 1000000007 of channel 0 instead of 7 of/],
     ['lose=3',    qr/sequence: \d+ of channel 0 instead of/])
{
    my ($option, $told) = @$_;
    unlink dir() . '/bench.json';
    ($status, $text) = bench($option =~ s/=//r, 'only=fan', $option);
    isnt($status, 0, "$option: it fails");
    like($text, $told, 'and tells why');
    ok(!-e dir() . '/bench.json', 'with no result');
}

my $redis = RT::Redis->new;
$Bench::redis = $redis;
my $bare = Bench::bare(lose => 5);
my @poll = (poll => port => $bare->{port}, conns => 2);
is(Bench::Load->new(@poll, path => '/304')->run(0, 10)->{done}, 10,
    'a poll is answered');
for (['status', path => '/304', status => 200],
     ['body', path => '/200', status => 200, body => 199])
{
    my ($what, @expected) = @$_;
    ok(!eval { Bench::Load->new(@poll, @expected)->run(0, 10) },
        "another $what is an error");
    like($@, qr/answered (?:304 with 0|200 with 200) bytes/, 'told');
}

Bench::end($bare);

# the last one is lost: nothing comes after it that would show it.  Published
# and waited for at once, or one after the other
my $load;
for my $way ([sub ($rate, $n) { $load->run($rate, $n) }, 'at once'],
             [sub ($rate, $n) { $load->tell('post', 0, $n);
                                $load->tell('rest') }, 'later'])
{
    my ($run, $when) = @$way;
    $bare = Bench::bare(lose => 5);
    $load = Bench::Load->new('fan', port => $bare->{port}, wait => 1,
        clients => 3, redis => $redis->port, name => 'c%u', path => '/sse/c%u');
    RT::poll_until(sub { $redis->numsub('c0') }, 5);
    is($run->(100, 4)->{done}, 12, "$when: four messages to three clients");
    ok(!eval { $run->(100, 1) }, 'the fifth does not come to one');
    like($@, qr/sequence: 1 deliveries of 3 are missing/, 'which is told');
    $load->close;
    Bench::end($bare);
}

# ages count from when a message was due, also when the load itself comes late
# to it: most of twenty are due while it stands still
$bare = Bench::bare();
$load = Bench::Load->new('fan', port => $bare->{port}, clients => 2,
    redis => $redis->port, name => 'd%u', path => '/sse/d%u');
RT::poll_until(sub { $redis->numsub('d0') }, 5);
$load->start('run', 40, 20);
RT::poll_until(sub { get($bare->{port}, '/count')->body > 0 }, 5);
RT::freeze($load->{pid});
RT::poll_until(sub { 0 }, 0.5);
kill CONT => $load->{pid};
my $r = $load->finish;
is($r->{done}, 40, 'a load that stood still');
cmp_ok($r->{$_}, '>', 150, "the age of a message, $_") for qw(p50 each99);
Bench::end($bare);


# a storm: ten were missed, and ten must come

my $ngx = Servers::ours('rt_hub five { redis %%REDIS%%; history 5; }',
    'location ~ ^/five/(?<channel>\w+)$ { rt_subscribe five $channel; }');
my @storm = (storm => port => $ngx->port, clients => 6, channels => 2,
             redis => $redis->port, name => 't%u', from => 9);
my $storm = Bench::Load->new(@storm, path => '/sse/t%u');
Servers::channels_live('t*', 2);
$storm->tell('post', 0, 10);
is($storm->run(0, 0)->{done}, 6, 'a storm: all have what they missed');
$storm->tell('rest');
$storm->close;
$storm = Bench::Load->new(@storm, path => '/five/t%u');
RT::poll_until(sub { $redis->numsub('t1') == 2 }, 5);
$storm->tell('post', 0, 10);
ok(!eval { $storm->run(0, 0) }, 'five of ten are no result');
like($@, qr/a gap/, 'which is told');
$ngx->stop;


# Ctrl-C

my @left;

sub below ($pid) {
    my %children;
    for my $file (glob '/proc/[0-9]*/stat') {
        my ($child) = $file =~ /(\d+)/;
        my (undef, $parent) = split / /, slurp($file) =~ s/^.*\) //sr;
        push @{$children{$parent}}, $child if defined $parent;
    }
    my @all;
    my @look = ($pid);
    while (defined(my $next = shift @look)) {
        push @look, @{$children{$next} // []};
        push @all, $next;
    }
    return @all[1 .. $#all];
}

sub interrupt ($pid, $log) {
    RT::poll_until(sub { slurp($log) =~ /round 1 of 99/ }, 30);
    @left = below($pid);
    kill INT => $pid;
}

($status, $text) = bench('interrupted', 'rounds=99', 'only=fan');
cmp_ok(scalar @left, '>=', 5, 'Redis, nginx, the bare loop and loads');
isnt($status, 0, 'it ends') or diag($text);
unlike($status, qr/hangs/, 'at once');
wait_ok { !grep { -e "/proc/$_" && slurp("/proc/$_/stat") !~ /\) Z / } @left }
    5, 'and so does all that it started';

done_testing;
