package Part::Intake;

# What is taken from Redis: with no client, and with one on each channel.
#
# Once as it is published, once from behind: all is published while the reader
# is stopped and then taken at once, so that the reader is what is measured,
# neither the publisher nor the speed of Redis.

use v5.36;
use Bench;
use Report;
use RT;
use Servers;
use Time::HiRes qw(time);

# each: channels of one client, messages
our %sizes = (
    full  => { pubsub => 400_000, stream => 200_000,
               each => [10_000, 60_000] },
    quick => { pubsub => 40_000, stream => 20_000, each => [1000, 6000] },
    smoke => { pubsub => 1000, stream => 1000, each => [20, 100] },
);

sub seconds ($size, $rounds) {
    return 4 + $rounds * 4 * ($size->{pubsub} + $size->{stream}) / 150_000
        + $size->{each}[0] / 1000 + $rounds * 5 * $size->{each}[1] / 40_000;
}

# Until all of COUNT was taken, in steps of 2 ms
sub until_taken ($now, $before, $count) {
    my $end = time + 60;
    while ((my $is = $now->() - $before) < $count) {
        die "messages are missing: $is of $count\n" if time > $end;
        Time::HiRes::sleep(0.002);
    }
}

# NOW: how many the reader has taken; without it the load's own clients tell
sub taken ($pid, $load, $count, $now = undef) {
    my $before = $now ? $now->() : 0;
    my $all = sub ($command) {
        $load->tell($command) if $command ne '';
        until_taken($now, $before, $count) if $now;
    };
    my $start = time;
    $load->run(0, $count);
    $all->('');
    my $live = $count / (time - $start);

    $before = $now->() if $now;
    my $cpu = Bench::cpu_of($pid);
    RT::freeze($pid) or die "process $pid does not stop\n";
    $load->tell('post', 0, $count);
    $start = time;
    kill CONT => $pid;
    $all->('rest');
    return { live => $live, behind => $count / (time - $start),
             cost => (Bench::cpu_of($pid) - $cpu) / $count };
}

sub rows ($what, %values) {
    for (['live', 'messages/s', 0.8, 'as published'],
         ['behind', 'messages/s', 0.8, 'from behind'],
         ['cost', 'us per message', undef, 'CPU from behind'])
    {
        my ($field, $unit, $target, $label) = @$_;
        Report::row(part => 'intake', unit => $unit, target => $target,
            label => "$what, $label", more => $field ne 'cost',
            values => Bench::pick($field, %values),
            is => $field eq 'cost' && $what eq 'PSUBSCRIBE' ? 'intake'
                : undef);
    }
}

sub count_of ($bare) {
    return sub { get($bare->{port}, '/count')->body + 0 };
}

# the first is on its way when the feed is live; then none is any more
sub settle ($what, $load, $now) {
    my $before = $now->();
    RT::poll_until(sub { $load->run(0, 10); $now->() - $before > 0 },
                   10) // die "$what: nothing arrives\n";
    my $last = -1;
    RT::poll_until(sub { my $is = $now->(); my $same = $is == $last;
                         $last = $is; return $same }, 5);
}

sub without_clients ($size, $rounds) {
    my $ngx = Servers::nginx(<<'H', 'location = /status { rt_status json; }
        rt_hub pub { zone 64m; redis %%REDIS%%; subscribe ir*;
                     redis_timeout 5s 60s; }
        rt_hub str { zone 64m; redis %%REDIS%%; source stream;
                     redis_timeout 5s 60s; }
H
        location ~ ^/str/(?<channel>\w+)$ { rt_subscribe str $channel; }');
    my $pid = Servers::worker($ngx);
    my @bare = (Bench::bare(pattern => 'ib*'),
                Bench::bare(stream => 'sb%u', streams => 10));

    # a stream is followed when somebody asks
    get($ngx, "/str/sr$_") for 0 .. 9;
    my %of = (
        'PSUBSCRIBE' => [$size->{pubsub}, { bare => [$bare[0], 'ib%u'],
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
            my $load = Bench::Load->new('fan', redis => $Bench::redis->port,
                clients => 0, name => $channel, @args);
            my $now = ref $server ? count_of($server)
                : sub { Servers::hub($ngx, $server)->{messages}{in} };
            settle("$kind, $name", $load, $now);
            $subs{$name} = sub {
                my $r = taken(ref $server ? $server->{pid} : $pid, $load,
                              $count, $now);
                $Bench::redis->cmd(XTRIM => "$1$_", 'MAXLEN', 100)
                    for $kind eq 'XREAD' && $channel =~ /^(\w+)%/ ? 0 .. 9 : ();
                return $r;
            };
        }
        rows($kind, Bench::rounds($rounds,
            Bench::told("intake: $kind", $i / 3, ($i + 1) / 3), %subs));
        $i++;
    }
    my @gaps = map { Servers::hub($ngx, $_)->{feed}{gaps} } qw(pub str);
    "@gaps" eq '0 0' or die "gaps: @gaps\n";
    Bench::end(@bare);
    $ngx->stop;
}

# The floor has the same subscriptions and writes each message to its client;
# "reading alone" has them too, its clients as well, and writes nothing.
sub with_clients ($channels, $count, $rounds) {
    Bench::progress('intake: ' . Report::commas($channels) . ' x 1, opening',
                    0.67);
    my @servers = (
        Servers::bare('eb'),
        { %{Servers::bare('em', mute => 1)}, name => 'reading alone' },
        Servers::rt('er', 'ngx_rt',
            'rt_hub each { zone 64m; redis %%REDIS%%; redis_timeout 5s 60s; }',
            'location ~ ^/each/(?<channel>\w+)$ { rt_subscribe each $channel; }
             rt_buffer 8m;'),
    );
    $servers[2]{load}{path} = '/each/er%u';
    my %load = Servers::loads(\@servers, clients => $channels,
                                channels => $channels);
    Servers::channels_live("e$_*", $channels) for qw(b m r);
    # whose clients wait for nothing
    my $publisher = Bench::Load->new('fan', redis => $Bench::redis->port,
        clients => 0, channels => $channels, name => 'em%u');

    my %subs = map { my $server = $_; ($server->{name} => sub {
        return $server->{name} eq 'reading alone'
            ? taken($server->{pid}, $publisher, $count, count_of($server))
            : taken($server->{pid}, $load{$server->{name}}, $count) }) }
        @servers;
    rows(Report::commas($channels) . ' x 1', Bench::rounds($rounds,
        Bench::told('intake: ' . Report::commas($channels) . ' x 1', 0.7),
        %subs));
    $_->close for values %load, $publisher;
    $_->{stop}->() for @servers;
}

sub run ($size, $rounds, %) {
    without_clients($size, $rounds);
    with_clients(@{$size->{each}}, $rounds);
}

1;
