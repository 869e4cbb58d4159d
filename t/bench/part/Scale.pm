package Part::Scale;

# Whether a delivery costs more among many clients: its CPU time at several
# numbers of clients of one channel, and how that grows beside the growth of
# the bare loop.  Then more streams than a process has descriptors, over
# several workers and loads.

use v5.36;
use Bench;
use List::Util qw(sum);
use Report;
use Servers;

# cases: clients, messages a second, messages.  many: streams, workers, loads,
# messages a second, messages
our %sizes = (
    full  => { cases => [[1000, 40, 40], [5000, 8, 12], [19_000, 2, 4]],
               many => [50_000, 4, 3, 1, 4], rounds => 4 },
    quick => { cases => [[500, 40, 8], [4000, 8, 3]] },
    smoke => { cases => [[5, 100, 4], [20, 50, 4]],
               many => [60, 2, 3, 10, 2] },
);

sub seconds ($size, $rounds) {
    my $sum = 3;
    for (@{$size->{cases}}) {
        my ($clients, $rate, $count) = @$_;
        $sum += $clients / 2500 + 2.2 * $rounds * $count / $rate;
    }
    my ($streams) = @{$size->{many} // [0]};
    return $sum + $streams / 1700;
}

sub at ($clients, $rate, $count, $rounds, @share) {
    my $what = 'scale: ' . Report::commas($clients) . ' clients';
    Bench::progress("$what, opening", $share[0]);
    my @servers = (Servers::bare('cb'), Servers::rt('cr'));
    my %pid = map { $_->{name} => $_->{pid} } @servers;
    my %load = Servers::loads(\@servers, clients => $clients);
    Servers::channels_live("c$_*", 1) for qw(b r);

    my %late = map { $_ => 0 } keys %load;
    my %values = Bench::rounds($rounds, Bench::told($what, @share),
        map { my $name = $_; ($name => sub {
            Bench::paced(\%late, $name, $pid{$name}, $load{$name}, $rate,
                         $count) }) } keys %load);
    Report::row(part => 'scale', unit => 'us per delivery',
        label => '1 channel, ' . Report::commas($clients) . ' clients',
        late => \%late, values => \%values);
    $_->close for values %load;
    $_->{stop}->() for @servers;
    return \%values;
}

# of each round, how often that of the first
sub growth ($first, $last) {
    return { map { my $name = $_;
        ($name => [map { $last->{$name}[$_] / $first->{$name}[$_] }
            0 .. $#{$last->{$name}}]) } keys %$last };
}

# each load has a channel and an address of its own
sub many ($streams, $workers, $loads, $rate, $count) {
    my $label = Report::commas($streams) . " streams, $workers workers";
    Bench::progress("scale: $label, opening", 0.7);
    my $ngx = Servers::ours('', '', workers => $workers);
    my @pids = $ngx->workers;
    my $before = Bench::memory_of(@pids);
    my @load = map { Bench::Load->begin('fan', redis => $Bench::redis->port,
        port => $ngx->port, from => 1 + $_, clients => int $streams / $loads,
        path => "/sse/many$_", name => "many$_") } 1 .. $loads;
    $_->opened for @load;
    my $open = sum(map { $_->{open} } @load);
    my $after = Bench::memory_of(@pids);
    Servers::channels_live('many*', $loads);

    Bench::progress("scale: $label", 0.9);
    my $cpu = Bench::cpu_of(@pids);
    $_->start('run', $rate, $count) for @load;
    my $done = sum(map { $_->finish->{done} } @load);
    $cpu = Bench::cpu_of(@pids) - $cpu;
    $done == $open * $count or die "$done deliveries, not $open x $count\n";

    for (['PSS', 'KB per stream', ($after->{pss} - $before->{pss}) / $open],
         ['CPU', 'us per delivery', $cpu / $done])
    {
        my ($what, $unit, $value) = @$_;
        Report::row(part => 'scale', unit => $unit, label => "$what, $label",
            floor => '', values => { ngx_rt => [$value] });
    }
    $_->close for @load;
    $ngx->stop;
}

sub run ($size, $rounds, %) {
    my @cases = @{$size->{cases}};
    my @values;
    for my $i (0 .. $#cases) {
        push @values, at(@{$cases[$i]}, $rounds,
                         map { 0.7 * $_ / @cases } $i, $i + 1);
    }
    for my $i (1 .. $#cases) {
        Report::row(part => 'scale', unit => 'times', target => 1.15,
            label => 'growth, ' . join(' to ', map { Report::commas($_->[0]) }
                @cases[0, $i]),
            values => growth($values[0], $values[$i]));
    }
    many(@{$size->{many}}) if $size->{many};
}

1;
